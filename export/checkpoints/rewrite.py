"""A transformer's tower computed with less work: the same function of the same weights, for the tracer.

    patches as one MatMul; Q, K and V as one; in the last layer only the row that is pooled

Equal in exact arithmetic, not to the last bit: sums are in another order. The gate compares the result with the
checkpoint's own module, whose weights these modules share.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import ModelOutput

_HIDDEN = -3.0e38  # a masked score; -inf would become NaN where two masks meet


class _Layer(nn.Module):
    """One pre-norm layer of CLIP's or SigLIP's encoder: float32[N, L, W] -> the same.

    L is an argument and widths are plain numbers: read from each tensor, they would be nodes of the graph.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        attention = layer.self_attn
        self.heads, self.width, self.scale = attention.num_heads, attention.embed_dim, attention.scale
        q = (attention.q_proj.weight, attention.q_proj.bias)
        # Multiplied by a power of two, a weight loses nothing in any precision.
        if math.frexp(self.scale)[0] == 0.5:
            q, self.scale = (q[0] * self.scale, q[1] * self.scale), 1.0
        self._pack(q, *((one.weight, one.bias) for one in (attention.k_proj, attention.v_proj)))

    def _pack(self, q: Any, k: Any, v: Any) -> None:
        self.weight, self.bias = _fused(q, k, v)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: int, tokens: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """float32[N, rows, W], float32[N, L, W] twice -> float32[N * rows, W] in the shape of q's heads."""
        by_head = [
            one.reshape(-1, count, self.heads, self.width // self.heads)
            for one, count in ((q, rows), (k, tokens), (v, tokens))
        ]
        scores = by_head[0].permute(0, 2, 1, 3) @ by_head[1].permute(0, 2, 3, 1)
        if self.scale != 1:
            scores = scores * self.scale
        if mask is not None:
            scores = scores + mask
        return (scores.softmax(-1) @ by_head[2].permute(0, 2, 1, 3)).permute(0, 2, 1, 3)

    def forward(self, states: torch.Tensor, tokens: int, mask: torch.Tensor | None = None) -> torch.Tensor:
        packed = functional.linear(self.layer.layer_norm1(states), self.weight, self.bias)
        q, k, v = torch.split(packed, self.width, -1)
        seen = self._attend(q, k, v, tokens, tokens, mask)
        return self._finish(states, seen.reshape(-1, tokens, self.width))

    def _finish(self, states: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        states = states + self.layer.self_attn.out_proj(seen)
        finished: torch.Tensor = states + self.layer.mlp(self.layer.layer_norm2(states))
        return finished


class _LastLayer(_Layer):
    """The last layer for one row of each: float32[N, L, W] and that row's states, float32[N, W] -> float32[N, W]."""

    def _pack(self, q: Any, k: Any, v: Any) -> None:
        self.weight, self.bias = _fused(k, v)
        self.row_weight, self.row_bias = (nn.Parameter(one.detach(), False) for one in q)

    def forward_row(
        self, states: torch.Tensor, row: torch.Tensor, tokens: int, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        norm = self.layer.layer_norm1
        k, v = torch.split(functional.linear(norm(states), self.weight, self.bias), self.width, -1)
        q = functional.linear(norm(row), self.row_weight, self.row_bias)
        seen = self._attend(q, k, v, 1, tokens, mask)
        return self._finish(row, seen.reshape(-1, self.width))


def _fused(*linears: Any) -> tuple[nn.Parameter, nn.Parameter]:
    with torch.no_grad():
        weight, bias = (torch.cat(parts) for parts in zip(*linears, strict=True))
    return nn.Parameter(weight, False), nn.Parameter(bias, False)


class _Patches(nn.Module):
    """The convolution whose stride is its kernel, as one MatMul: float32[N, 3, S, S] -> float32[N, patches, W]."""

    def __init__(self, convolution: Any, size: int) -> None:
        super().__init__()
        self.side = convolution.kernel_size[0]
        self.grid = size // self.side
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1), False)
        self.bias = convolution.bias

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = self.grid * self.side
        blocks = pixels[:, :, :seen, :seen].reshape(-1, 3, self.grid, self.side, self.grid, self.side)
        rows = blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.grid**2, 3 * self.side**2)
        return functional.linear(rows, self.weight, self.bias)


class ClipImage(nn.Module):
    """CLIPVisionModelWithProjection: float32[N, 3, S, S] -> image_embeds float32[N, D]."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.config, self.tower = tower.config, tower
        vision = tower.vision_model
        self.patches = _Patches(vision.embeddings.patch_embedding, tower.config.image_size)
        *layers, last = vision.encoder.layers
        self.tokens = vision.embeddings.num_positions
        self.layers = nn.ModuleList([_Layer(layer) for layer in layers])
        self.last = _LastLayer(last)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        vision = self.tower.vision_model
        patches = self.patches(pixel_values)
        first = vision.embeddings.class_embedding.expand(patches.shape[0], 1, -1)
        states = torch.cat([first, patches], 1) + vision.embeddings.position_embedding.weight
        states = vision.pre_layrnorm(states)
        for layer in self.layers:
            states = layer(states, self.tokens)
        pooled = self.last.forward_row(states, states[:, 0], self.tokens)
        return ModelOutput(image_embeds=self.tower.visual_projection(vision.post_layernorm(pooled)))


class ClipText(nn.Module):
    """CLIPTextModelWithProjection: int64[N, L] -> text_embeds float32[N, D], pooled where the text ends."""

    causal: torch.Tensor
    positions: torch.Tensor

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.config, self.tower = tower.config, tower
        text = tower.text_model
        *layers, last = text.encoder.layers
        self.layers = nn.ModuleList([_Layer(layer) for layer in layers])
        self.last = _LastLayer(last)
        length = tower.config.max_position_embeddings
        self.register_buffer("causal", torch.full((length, length), _HIDDEN).triu(1), persistent=False)
        self.register_buffer("positions", torch.arange(length), persistent=False)

    def forward(self, input_ids: torch.Tensor) -> Any:
        text = self.tower.text_model
        length = input_ids.shape[1]
        states = text.embeddings.token_embedding(input_ids) + text.embeddings.position_embedding.weight[:length]
        mask = self.causal[:length, :length]
        for layer in self.layers:
            states = layer(states, length, mask)
        # As `CLIPTextTransformer` does: older configs say 2, which ends no text, and mean the highest token.
        ends = input_ids if text.eos_token_id == 2 else input_ids == text.eos_token_id
        end = ends.int().argmax(-1)
        row = states[torch.arange(states.shape[0]), end]
        after = self.positions[:length] > end[:, None]
        pooled = self.last.forward_row(states, row, length, after[:, None, None] * _HIDDEN)
        return ModelOutput(text_embeds=self.tower.text_projection(text.final_layer_norm(pooled)))


class SiglipImage(nn.Module):
    """SiglipVisionModel: float32[N, 3, S, S] -> image_embeds float32[N, D], pooled by attention."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.config, self.vision = tower.config, tower.vision_model
        self.patches = _Patches(self.vision.embeddings.patch_embedding, tower.config.image_size)
        self.tokens = self.vision.embeddings.num_positions
        self.layers = nn.ModuleList([_Layer(layer) for layer in self.vision.encoder.layers])
        self.head = _PoolingHead(self.vision.head, self.tokens)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        states = self.patches(pixel_values) + self.vision.embeddings.position_embedding.weight
        for layer in self.layers:
            states = layer(states, self.tokens)
        return ModelOutput(image_embeds=self.head(self.vision.post_layernorm(states)))


class _PoolingHead(nn.Module):
    """SiglipMultiheadAttentionPoolingHead, whose MultiheadAttention a tracer would freeze to one batch size.

    Its query is the same for every picture: computed here, once.
    """

    def __init__(self, head: Any, tokens: int) -> None:
        super().__init__()
        self.head, self.tokens = head, tokens
        attention = head.attention
        self.heads, self.width = attention.num_heads, attention.embed_dim
        self.each, width = self.width // self.heads, self.width
        weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
        query = functional.linear(head.probe.detach()[0], weight[:width], bias[:width])
        query = query.reshape(self.heads, 1, self.each) * self.each**-0.5
        self.query = nn.Parameter(query, False)
        self.weight, self.bias = nn.Parameter(weight[width:], False), nn.Parameter(bias[width:], False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        packed = functional.linear(states, self.weight, self.bias)
        k, v = (one.reshape(-1, self.tokens, self.heads, self.each) for one in torch.split(packed, self.width, -1))
        seen = (self.query @ k.permute(0, 2, 3, 1)).softmax(-1) @ v.permute(0, 2, 1, 3)
        pooled = self.head.attention.out_proj(seen.reshape(-1, self.width))
        embeds: torch.Tensor = pooled + self.head.mlp(self.head.layernorm(pooled))
        return embeds


class SiglipText(nn.Module):
    """SiglipTextModel: int64[N, L] -> text_embeds float32[N, D], pooled at the last token, which may be padding."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.config, self.text = tower.config, tower.text_model
        *layers, last = self.text.encoder.layers
        self.layers = nn.ModuleList([_Layer(layer) for layer in layers])
        self.last = _LastLayer(last)

    def forward(self, input_ids: torch.Tensor) -> Any:
        embeddings, length = self.text.embeddings, input_ids.shape[1]
        states = embeddings.token_embedding(input_ids) + embeddings.position_embedding.weight[:length]
        for layer in self.layers:
            states = layer(states, length)
        pooled = self.last.forward_row(states, states[:, -1], length)
        return ModelOutput(text_embeds=self.text.head(self.text.final_layer_norm(pooled)))
