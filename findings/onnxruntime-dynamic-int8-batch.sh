#!/usr/bin/env bash
# ONNX Runtime: with dynamic int8, a row's output depends on the other rows of its batch.
#
# Versions: onnxruntime 1.32.0 (CPU), onnx 1.23.2, numpy 2.4.6.
#
# A good guess: MatMul treats every row by itself, so row 0 gives the same output alone and in any batch. int8 adds an
# error of its own, but always the same one.
#
# What happens: `quantize_dynamic` puts a DynamicQuantizeLinear before the MatMul. It takes one scale from the
# smallest and largest number of the whole tensor, all rows of the batch together. One loud neighbour makes the steps
# coarse for everybody, and the same row comes out differently. `quantize_static` keeps scales as constants: the row
# is the same to the last bit, alone and in company.
#
# Why it matters: an embedding is stored once and compared for years. With dynamic int8 a picture does not find itself
# exactly when it shared its batch with others the second time. Use static scales, or batches of one.
#
# Seen:
#   onnxruntime 1.32.0 onnx 1.23.2
#   float32  same bits alone and beside a loud row: True   cosine of the two: 1.0000
#   dynamic  same bits alone and beside a loud row: False  cosine of the two: 0.9957
#   static   same bits alone and beside a loud row: True   cosine of the two: 1.0000
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

logging.disable(logging.WARNING)  # advice to preprocess the graph
print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
random = np.random.default_rng(0)

weights = numpy_helper.from_array(random.normal(size=(64, 32)).astype(np.float32), "weights")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["rows", "weights"], ["out"])],
    "one_product",
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 64])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 32])],
    [weights],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "float32.onnx")


class Calibration(CalibrationDataReader):
    batches = iter([{"rows": random.normal(size=(64, 64)).astype(np.float32)}])

    def get_next(self):
        return next(self.batches, None)


quantize_dynamic("float32.onnx", "dynamic.onnx", weight_type=QuantType.QInt8)
quantize_static("float32.onnx", "static.onnx", Calibration(), per_channel=True, reduce_range=True)

row = random.normal(size=(1, 64)).astype(np.float32)
loud = 10 * random.normal(size=(1, 64)).astype(np.float32)
same = {}
for name in ("float32", "dynamic", "static"):
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    alone = session.run(None, {"rows": row})[0][0]
    beside = session.run(None, {"rows": np.concatenate([row, loud])})[0][0]
    cosine = alone @ beside / np.linalg.norm(alone) / np.linalg.norm(beside)
    same[name] = np.array_equal(alone, beside)
    print(f"{name:8} same bits alone and beside a loud row: {same[name]!s:5}  cosine of the two: {cosine:.4f}")

if same != {"float32": True, "dynamic": False, "static": True}:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
