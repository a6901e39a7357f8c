#!/usr/bin/env bash
# ONNX Runtime: ReduceMean over the middle axis adds up in another order when the batch has one entry.
#
# Versions: onnxruntime 1.32.0 (CPU, one thread), onnx 1.23.2, numpy 2.4.6.
#
# A good guess: float32 on one thread of one machine is repeatable, so the mean over the tokens of a text is the same
# number whether the text runs alone, [1, tokens, width], or with others, [n, tokens, width].
#
# What happens: batches of two and three agree to the last bit; a batch of one differs in the last bits of most
# components. The axis of length one lets ONNX Runtime see a plainer shape, for which it has another way of adding up.
# Transpose and GlobalAveragePool compute the same mean and give the same bits for every batch.
#
# Why it matters: whoever promises bit-identical vectors, or keeps them by a digest, breaks the promise by mean
# pooling inside the graph, and a test that compares a batch of two with a batch of three does not see it. Compare
# with a batch of one, and pool by GlobalAveragePool.
#
# Seen:
#   onnxruntime 1.32.0 onnx 1.23.2
#   of 128 components of the first text, so many differ from those in a batch of 3:
#   ReduceMean        95 in a batch of 1 (by at most 8.9e-08), 0 in a batch of 2
#   GlobalAveragePool  0 in a batch of 1 (by at most 0.0e+00), 0 in a batch of 2
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
WIDTH = 128
tokens = np.random.default_rng(0).normal(size=(3, 50, WIDTH)).astype(np.float32)
ways = {
    "ReduceMean": [helper.make_node("ReduceMean", ["tokens"], ["mean"], axes=[1], keepdims=0)],
    "GlobalAveragePool": [
        helper.make_node("Transpose", ["tokens"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("GlobalAveragePool", ["turned"], ["mean"]),
    ],
}
print(f"of {WIDTH} components of the first text, so many differ from those in a batch of 3:")
differing = {}
for name, nodes in ways.items():
    graph = helper.make_graph(
        nodes,
        "pooling",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["n", "length", WIDTH])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    of_one, of_two, of_three = (session.run(None, {"tokens": tokens[:n]})[0][0].ravel() for n in (1, 2, 3))
    differing[name] = int((of_one != of_three).sum()), int((of_two != of_three).sum())
    print(
        f"{name:17} {differing[name][0]:2} in a batch of 1 (by at most {abs(of_one - of_three).max():.1e}), "
        f"{differing[name][1]} in a batch of 2"
    )

if differing["ReduceMean"][0] == 0 or differing["ReduceMean"][1] != 0 or differing["GlobalAveragePool"] != (0, 0):
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
