"""The names of tensors in the reference library's files of BERT, T5 and GPT-Neo."""

import re
from collections.abc import Mapping

import numpy as np

from kdjax.models.io.torch_names import strip_prefixes

# layer of kdjax -> layer of the reference library; {} is the number of the layer
_BERT = {
    "word": "bert.embeddings.word_embeddings",
    "position": "bert.embeddings.position_embeddings",
    "token_type": "bert.embeddings.token_type_embeddings",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "layer{}/attention/query": "bert.encoder.layer.{}.attention.self.query",
    "layer{}/attention/key": "bert.encoder.layer.{}.attention.self.key",
    "layer{}/attention/value": "bert.encoder.layer.{}.attention.self.value",
    "layer{}/attention/out": "bert.encoder.layer.{}.attention.output.dense",
    "layer{}/attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "layer{}/ffn_in": "bert.encoder.layer.{}.intermediate.dense",
    "layer{}/ffn_out": "bert.encoder.layer.{}.output.dense",
    "layer{}/ffn_norm": "bert.encoder.layer.{}.output.LayerNorm",
    "pooler": "bert.pooler.dense",
    "fc": "classifier",
}
_GPT_NEO = {
    "word": "transformer.wte",
    "position": "transformer.wpe",
    "layer{}/attention_norm": "transformer.h.{}.ln_1",
    "layer{}/attention/query": "transformer.h.{}.attn.attention.q_proj",
    "layer{}/attention/key": "transformer.h.{}.attn.attention.k_proj",
    "layer{}/attention/value": "transformer.h.{}.attn.attention.v_proj",
    "layer{}/attention/out": "transformer.h.{}.attn.attention.out_proj",
    "layer{}/ffn_norm": "transformer.h.{}.ln_2",
    "layer{}/ffn_in": "transformer.h.{}.mlp.c_fc",
    "layer{}/ffn_out": "transformer.h.{}.mlp.c_proj",
    "norm": "transformer.ln_f",
}


def _t5() -> dict[str, str]:
    names = {"word": "shared", "lm_head": "lm_head"}
    letters = {"query": "q", "key": "k", "value": "v", "out": "o"}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        layer, file_layer = f"{stack}/layer{{}}", f"{stack}.block.{{}}.layer"
        blocks = [("attention", f"{file_layer}.0", "SelfAttention")]
        if stack == "decoder":
            blocks.append(("cross", f"{file_layer}.1", "EncDecAttention"))
        for name, block, kind in blocks:
            names[f"{layer}/{name}_norm"] = f"{block}.layer_norm"
            for part, letter in letters.items():
                names[f"{layer}/{name}/{part}"] = f"{block}.{kind}.{letter}"
        names[f"{layer}/ffn_norm"] = f"{file_layer}.{last}.layer_norm"
        for part, letter in (("ffn_in", "wi"), ("ffn_gate", "wi_0"), ("ffn_out", "wo")):
            names[f"{layer}/{part}"] = f"{file_layer}.{last}.DenseReluDense.{letter}"
        # the first block holds the table that all blocks of its stack use
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        names[f"{stack}/distance"] = table
        names[f"{stack}/norm"] = f"{stack}.final_layer_norm"
    return names


_NAMES: Mapping[str, Mapping[str, str]] = {"bert": _BERT, "t5": _t5(), "gpt_neo": _GPT_NEO}
# names of buffers, which files contain in addition to weights
_BUFFERS = re.compile(r"(^|\.)(position_ids|attn\.attention\.(bias|masked_bias))$")
_PREFIX = {"bert": "bert.", "gpt_neo": "transformer."}
_HEADS = {"bert": ("classifier.", "cls."), "gpt_neo": ("lm_head.",)}
# tied tensors, of which files hold some or all: the name read, and its other names
_TIED = {
    "t5": ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
           "lm_head.weight"),
    "gpt_neo": ("transformer.wte.weight", "lm_head.weight"),
}  # fmt: skip


def to_name(family: str, path: str, gated: bool = False) -> str:
    """Convert the path of a parameter to the reference library's name.

    Args:
      family: "bert", "t5" or "gpt_neo".
      path: as `models.flatten` names it.
      gated: True for a T5 with two maps into the wide layer.

    >>> to_name("bert", "params/layer3/ffn_in/kernel")
    'bert.encoder.layer.3.intermediate.dense.weight'
    """
    layer, leaf = path.removeprefix("params/").rsplit("/", 1)
    number = re.search(r"layer(\d+)", layer)
    generic = layer if number is None else layer.replace(number[0], "layer{}")
    name = _NAMES[family][generic].format("" if number is None else number[1])
    if gated and name.endswith("DenseReluDense.wi"):
        name += "_1"
    return f"{name}.{'bias' if leaf == 'bias' else 'weight'}"


def normalise(family: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert names of older and of headless files to the current ones, and drop buffers.

    Position ids, causal masks and equal copies of tied tensors are dropped, and of tied tensors any
    name is read; "gamma" and "beta" of old layer norms become "weight" and "bias"; a network saved
    without its head gets its prefix, and one inside of others loses theirs.

    >>> sorted(normalise("bert", {"embeddings.LayerNorm.gamma": 1, "embeddings.position_ids": 0}))
    ['bert.embeddings.LayerNorm.weight']
    """
    normalised: dict[str, np.ndarray] = {}
    roots = {level for name in _NAMES[family].values() for level in name.split(".")[:2]}
    tensors, prefix = strip_prefixes(tensors, roots), _PREFIX.get(family, "")
    bare = not any(name.startswith(prefix) for name in tensors)
    for name, tensor in tensors.items():
        if _BUFFERS.search(name):
            continue
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        headed = name.startswith(_HEADS.get(family, ()))
        normalised[prefix + name if bare and not headed else name] = tensor
    origin, *copies = _TIED.get(family, ("",))
    for copy in copies:
        if copy not in normalised:
            continue
        if origin not in normalised:
            normalised[origin] = normalised.pop(copy)
        elif np.array_equal(normalised[copy], normalised[origin]):
            del normalised[copy]
    return normalised
