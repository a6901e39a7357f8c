#!/usr/bin/env bash
# optimum-onnx: exporting a CLIP image tower leaves out its projection, without an error.
#
# Versions: optimum-onnx 0.1.0, optimum 2.1.0, transformers 4.57.6 (optimum-onnx takes none from 4.58 on), torch
# 2.13.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Pillow 13.0.0. A large download: torch's wheel may bring
# CUDA's libraries.
#
# A good guess: a checkpoint saved by `CLIPVisionModelWithProjection`, whose config.json names that class, exports to
# a graph that ends in `image_embeds`, the vector that is compared with texts.
#
# What happens: the exporter goes by the model type, `clip_vision_model`, and its graph ends before the projection.
# Its outputs are `last_hidden_state` and `pooler_output`, of the tower's inner width; the weights of the projection
# are not in the file. What there is, is computed rightly, so comparing the outputs that both have shows nothing.
#
# Why it matters: `pooler_output` is one vector for each picture, looks like an embedding, finds alike pictures, and
# has no meaning beside a text's vector. Look at the outputs' names and widths; and export with a config of your own
# whose output is `image_embeds`, as below.
#
# Seen:
#   optimum-onnx 0.1.0 transformers 4.57.6 torch 2.13.0+cpu
#   config.json names ['CLIPVisionModelWithProjection']
#   exported/model.onnx: holds a matrix from 32 to 16, the projection: False
#   exported/model.onnx: last_hidden_state (2, 5, 32)
#   exported/model.onnx: pooler_output (2, 32), equal to torch's: True
#   own.onnx: holds a matrix from 32 to 16, the projection: True
#   own.onnx: image_embeds (2, 16), equal to torch's: True
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optimum-onnx==0.1.0 optimum==2.1.0 \
    transformers==4.57.6 torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"

HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxruntime
import torch
from optimum.exporters.onnx import export, main_export
from optimum.exporters.onnx.model_configs import CLIPVisionModelOnnxConfig
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

print(*(f"{name} {version(name)}" for name in ("optimum-onnx", "transformers", "torch")))
torch.manual_seed(0)
config = CLIPVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
    projection_dim=16,
)  # fmt: skip
model = CLIPVisionModelWithProjection(config).eval()
model.save_pretrained("checkpoint")
CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained("checkpoint")
print("config.json names", json.loads(Path("checkpoint/config.json").read_text())["architectures"])
pixels = torch.randn(2, 3, 32, 32)
with torch.no_grad():
    torch_has = {"image_embeds": model(pixels).image_embeds, "pooler_output": model.vision_model(pixels).pooler_output}

main_export("checkpoint", output="exported", task="feature-extraction")


class WithProjection(CLIPVisionModelOnnxConfig):
    @property
    def outputs(self):
        return {"image_embeds": {0: "batch_size"}}


export(model, WithProjection(config, task="feature-extraction"), Path("own.onnx"))

names = {}
projected = {}
for path in ("exported/model.onnx", "own.onnx"):
    shapes = [list(tensor.dims) for tensor in onnx.load(path).graph.initializer]
    projected[path] = any(sorted(shape) == [16, 32] for shape in shapes)
    print(f"{path}: holds a matrix from 32 to 16, the projection: {projected[path]}")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names[path] = [output.name for output in session.get_outputs()]
    for name, value in zip(names[path], session.run(None, {"pixel_values": pixels.numpy()})):
        line = f"{path}: {name} {value.shape}"
        if name in torch_has:
            apart = abs(value - torch_has[name].numpy()).max()
            line += f", equal to torch's: {apart < 1e-5}"
            if apart >= 1e-5:
                raise SystemExit(f"No longer as stated: {line}")
        print(line)

if names != {"exported/model.onnx": ["last_hidden_state", "pooler_output"], "own.onnx": ["image_embeds"]}:
    raise SystemExit("No longer as stated.")
if projected != {"exported/model.onnx": False, "own.onnx": True}:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
