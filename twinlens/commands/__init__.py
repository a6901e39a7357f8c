"""The command `twinlens`, for those who reach the server only over HTTP."""
