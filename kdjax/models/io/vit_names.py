"""Names of arrays of vision transformers in the PyTorch code of timm and of torchvision.

There queries, keys and values are one tensor, which `split` splits and `fuse` joins.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_PARTS = ("query", "key", "value")
_FUSED = re.compile(r"^(.*\.)(qkv|in_proj)([._])(weight|bias)$")
_PART = re.compile(r"^(.*\.)(qkv|in_proj)\[(query|key|value)\]\.(weight|bias)$")
# layer of kdjax -> layer of the library; {} is the number of the layer
TIMM = {
    "class_token": "cls_token",
    "distillation_token": "dist_token",
    "position": "pos_embed",
    "patch": "patch_embed.proj",
    "layer{}/attention_norm": "blocks.{}.norm1",
    **{f"layer{{}}/attention/{part}": f"blocks.{{}}.attn.qkv[{part}]" for part in _PARTS},
    "layer{}/attention/out": "blocks.{}.attn.proj",
    "layer{}/ffn_norm": "blocks.{}.norm2",
    "layer{}/ffn_in": "blocks.{}.mlp.fc1",
    "layer{}/ffn_out": "blocks.{}.mlp.fc2",
    "norm": "norm",
    "fc": "head",
    "distillation_fc": "head_dist",
}
_LAYER = "encoder.layers.encoder_layer_{}"
TORCHVISION = {
    "class_token": "class_token",
    "position": "encoder.pos_embedding",
    "patch": "conv_proj",
    "layer{}/attention_norm": f"{_LAYER}.ln_1",
    **{f"layer{{}}/attention/{p}": f"{_LAYER}.self_attention.in_proj[{p}]" for p in _PARTS},
    "layer{}/attention/out": f"{_LAYER}.self_attention.out_proj",
    "layer{}/ffn_norm": f"{_LAYER}.ln_2",
    "layer{}/ffn_in": f"{_LAYER}.mlp.0",
    "layer{}/ffn_out": f"{_LAYER}.mlp.3",
    "norm": "encoder.ln",
    "fc": "heads.head",
}
_OLD = {"mlp.linear_1": "mlp.0", "mlp.linear_2": "mlp.3"}


def to_name(path: str, names: Mapping[str, str]) -> str:
    """Convert a flat name to the library's.

    >>> to_name("params/layer3/attention/key/kernel", TIMM)
    'blocks.3.attn.qkv[key].weight'
    """
    layer, _, leaf = path.removeprefix("params/").rpartition("/")
    if not layer:
        return names[leaf]
    number = re.match(r"layer(\d+)", layer)
    generic = layer if number is None else layer.replace(number[0], "layer{}")
    name = names[generic].format("" if number is None else number[1])
    return f"{name}.{'bias' if leaf == 'bias' else 'weight'}"


def split(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Split each tensor of queries, keys and values; convert older names of linear layers."""
    parts: dict[str, Any] = {}
    for name, tensor in tensors.items():
        for old, new in _OLD.items():
            name = name.replace(old, new)
        fused = _FUSED.match(name)
        if fused is None or np.shape(tensor)[0] % 3:
            parts[name] = tensor
            continue
        for part, third in zip(_PARTS, np.split(np.asarray(tensor), 3), strict=True):
            parts[f"{fused[1]}{fused[2]}[{part}].{fused[4]}"] = third
    return parts


def fuse(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join the tensors that `split` makes."""
    joined: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        part = _PART.match(name)
        if part is None:
            joined[name] = tensor
        elif part[3] == _PARTS[0]:
            thirds = [tensors[name.replace("[query]", f"[{p}]")] for p in _PARTS]
            separator = "_" if part[2] == "in_proj" else "."
            joined[f"{part[1]}{part[2]}{separator}{part[4]}"] = np.concatenate(thirds)
    return joined


def image_side(tensors: Mapping[str, Any], kernel: np.ndarray) -> int | None:
    """Return the side in pixels of the images that a network has positions for, or None."""
    for name, tensor in tensors.items():
        if name.endswith(("pos_embed", "pos_embedding")):
            special = 2 if any(other.endswith("dist_token") for other in tensors) else 1
            return round((np.shape(tensor)[1] - special) ** 0.5) * kernel.shape[2]
    return None
