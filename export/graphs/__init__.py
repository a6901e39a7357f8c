"""Towers to ONNX graphs, in each precision."""
