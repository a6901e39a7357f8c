"""Batches to vectors: the only part that knows ONNX Runtime."""
