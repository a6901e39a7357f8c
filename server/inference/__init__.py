"""Batches to vectors: the only part that knows ONNX Runtime."""

import os

# ONNX Runtime reads it once, when it is imported. Since 1.29 its builds for Linux tell Microsoft about the process, the
# model and the machine, and keep an id of the machine in the home folder; asked for afterwards, it is too late. So
# `export` and `bench` import this room before anything of theirs may import ONNX Runtime; what they start inherits it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
