"""What operators see of a running server: worker processes, metrics, progress, log lines."""
