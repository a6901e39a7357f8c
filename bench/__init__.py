import server.inference  # noqa: F401 - ONNX Runtime, which benchmarks may import before that room, is to tell nobody
