"""Names of tensors in Hugging Face's files, by family."""

import re
from collections.abc import Mapping

import numpy as np

from kdjax.models.io.torch_names import strip_prefixes

# layer of kdjax -> layer of Hugging Face; {} is the number of the layer
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
_DISTILBERT = {
    "word": "distilbert.embeddings.word_embeddings",
    "position": "distilbert.embeddings.position_embeddings",
    "embedding_norm": "distilbert.embeddings.LayerNorm",
    "layer{}/attention/query": "distilbert.transformer.layer.{}.attention.q_lin",
    "layer{}/attention/key": "distilbert.transformer.layer.{}.attention.k_lin",
    "layer{}/attention/value": "distilbert.transformer.layer.{}.attention.v_lin",
    "layer{}/attention/out": "distilbert.transformer.layer.{}.attention.out_lin",
    "layer{}/attention_norm": "distilbert.transformer.layer.{}.sa_layer_norm",
    "layer{}/ffn_in": "distilbert.transformer.layer.{}.ffn.lin1",
    "layer{}/ffn_out": "distilbert.transformer.layer.{}.ffn.lin2",
    "layer{}/ffn_norm": "distilbert.transformer.layer.{}.output_layer_norm",
    "pooler": "pre_classifier",
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
# in files queries, keys and values are one tensor, which `normalise` splits and `fuse` joins
_FUSED = ("c_attn[query]", "c_attn[key]", "c_attn[value]")
_GPT2 = {
    **_GPT_NEO,
    **{
        f"layer{{}}/attention/{name.split('[')[1][:-1]}": f"transformer.h.{{}}.attn.{name}"
        for name in _FUSED
    },
    "layer{}/attention/out": "transformer.h.{}.attn.c_proj",
}
_LLAMA = {
    "word": "model.embed_tokens",
    "layer{}/attention_norm": "model.layers.{}.input_layernorm",
    "layer{}/attention/query": "model.layers.{}.self_attn.q_proj",
    "layer{}/attention/key": "model.layers.{}.self_attn.k_proj",
    "layer{}/attention/value": "model.layers.{}.self_attn.v_proj",
    "layer{}/attention/out": "model.layers.{}.self_attn.o_proj",
    "layer{}/attention/query_norm": "model.layers.{}.self_attn.q_norm",
    "layer{}/attention/key_norm": "model.layers.{}.self_attn.k_norm",
    "layer{}/ffn_norm": "model.layers.{}.post_attention_layernorm",
    "layer{}/ffn_gate": "model.layers.{}.mlp.gate_proj",
    "layer{}/ffn_in": "model.layers.{}.mlp.up_proj",
    "layer{}/ffn_out": "model.layers.{}.mlp.down_proj",
    "norm": "model.norm",
    "lm_head": "lm_head",
}
_VIT = {
    "class_token": "vit.embeddings.cls_token",
    "distillation_token": "vit.embeddings.distillation_token",
    "position": "vit.embeddings.position_embeddings",
    "patch": "vit.embeddings.patch_embeddings.projection",
    "layer{}/attention_norm": "vit.encoder.layer.{}.layernorm_before",
    "layer{}/attention/query": "vit.encoder.layer.{}.attention.attention.query",
    "layer{}/attention/key": "vit.encoder.layer.{}.attention.attention.key",
    "layer{}/attention/value": "vit.encoder.layer.{}.attention.attention.value",
    "layer{}/attention/out": "vit.encoder.layer.{}.attention.output.dense",
    "layer{}/ffn_norm": "vit.encoder.layer.{}.layernorm_after",
    "layer{}/ffn_in": "vit.encoder.layer.{}.intermediate.dense",
    "layer{}/ffn_out": "vit.encoder.layer.{}.output.dense",
    "norm": "vit.layernorm",
    "fc": "classifier",
}


def _replace_prefix(names: Mapping[str, str], old: str, new: str, **changed: str) -> dict[str, str]:
    return {layer: name.replace(old, new, 1) for layer, name in names.items()} | changed


def _t5_names() -> dict[str, str]:
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


_ROBERTA_HEADS = {"pooler": "classifier.dense", "fc": "classifier.out_proj"}
_DEIT_HEADS = {"fc": "cls_classifier", "distillation_fc": "distillation_classifier"}
_NAMES: Mapping[str, Mapping[str, str]] = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _replace_prefix(_BERT, "bert.", "roberta.", **_ROBERTA_HEADS),
    "t5": _t5_names(),
    "gpt_neo": _GPT_NEO,
    "gpt2": _GPT2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    "vit": _VIT,
    "deit": _replace_prefix(_VIT, "vit.", "deit.", **_DEIT_HEADS),
}
# names of buffers, which files contain in addition to weights
_BUFFERS = re.compile(
    r"(^|\.)(position_ids|attn\.(attention\.)?(bias|masked_bias)|rotary_emb\.inv_freq"
    r"|EncDecAttention\.relative_attention_bias\.weight"  # of T5 1.0, never read
    r"|fit_denses?(\.\d+)?\.(weight|bias))$"  # of TinyBERT's training
)
_PREFIX = {
    "bert": "bert.",
    "distilbert": "distilbert.",
    "roberta": "roberta.",
    "gpt_neo": "transformer.",
    "gpt2": "transformer.",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), "model."),
    "vit": "vit.",
    "deit": "deit.",
}
# heads of fine-tuning and of pre-training; their names do not have the family's prefix
HEADS = {
    "bert": ("classifier.", "cls.", "qa_outputs."),
    "distilbert": ("pre_classifier.", "classifier.", "vocab_", "qa_outputs."),
    "roberta": ("classifier.", "lm_head.", "qa_outputs."),
    "vit": ("classifier.", "decoder."),
    "deit": ("classifier.", "cls_classifier.", "distillation_classifier.", "decoder."),
    **dict.fromkeys(("gpt_neo", "gpt2", "llama", "mistral", "qwen2", "qwen3"), ("lm_head.",)),
}
# modules that these classifiers do not use
_UNUSED = {name: f"{name}.pooler." for name in ("roberta", "vit", "deit")}
# names of tied tensors, of which files hold some or all; the first one is read
_TIED = {
    "t5": ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
           "lm_head.weight"),
    **dict.fromkeys(("gpt_neo", "gpt2"), ("transformer.wte.weight", "lm_head.weight")),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"),
                    ("model.embed_tokens.weight", "lm_head.weight")),
}  # fmt: skip


def to_name(family: str, path: str, gated: bool = False) -> str:
    """Convert the path of a parameter to Hugging Face's name.

    Args:
      family: "bert", "t5", ...
      path: as `models.flatten` names it.
      gated: True for a network with gated feed-forward layers, which have two input maps.

    >>> to_name("bert", "params/layer3/ffn_in/kernel")
    'bert.encoder.layer.3.intermediate.dense.weight'
    >>> to_name("vit", "params/class_token")
    'vit.embeddings.cls_token'
    """
    layer, _, leaf = path.removeprefix("params/").rpartition("/")
    if not layer:  # a parameter outside of layers
        return _NAMES[family][leaf]
    number = re.search(r"layer(\d+)", layer)
    generic = layer if number is None else layer.replace(number[0], "layer{}")
    name = _NAMES[family][generic].format("" if number is None else number[1])
    if gated and name.endswith("DenseReluDense.wi"):
        name += "_1"
    return f"{name}.{'bias' if leaf == 'bias' else 'weight'}"


def normalise(
    family: str, tensors: Mapping[str, np.ndarray], *, untied: bool = False
) -> dict[str, np.ndarray]:
    """Convert names of older and of headless files to the current ones, and drop buffers.

    Position ids, causal masks, unused poolers and equal copies of tied tensors are dropped, but not
    the head of an `untied` network; a tied tensor may have any of its names. "gamma" and "beta" of
    old layer norms become "weight" and "bias". A network saved without its head gets the family's
    prefix, and prefixes of outer modules are removed. A GPT-2's joint tensor of queries, keys and
    values is split into three.

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
        name = prefix + name if bare and not name.startswith(HEADS.get(family, ())) else name
        if name.startswith(_UNUSED.get(family, "-")):
            continue
        parts = _split(name, tensor) if family == "gpt2" and ".c_attn." in name else {name: tensor}
        normalised |= parts
    if not untied or family == "t5":
        _drop_copies(family, normalised)
    return normalised


def _drop_copies(family: str, tensors: dict[str, np.ndarray]) -> None:
    """Keep one name of equal tied tensors."""
    origin, *copies = _TIED.get(family, ("",))
    for copy in copies:
        if copy not in tensors:
            continue
        if origin not in tensors:
            tensors[origin] = tensors.pop(copy)
        elif np.array_equal(tensors[copy], tensors[origin]):
            del tensors[copy]


def _split(name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    parts = np.split(tensor, 3, axis=-1) if tensor.shape[-1] % 3 == 0 else [tensor]
    return {name.replace("c_attn", fused): x for fused, x in zip(_FUSED, parts, strict=False)}


def fuse(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join the tensors that `normalise` splits."""
    joined: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if _FUSED[0] in name:
            parts = [tensors[name.replace(_FUSED[0], fused)] for fused in _FUSED]
            joined[name.replace(_FUSED[0], "c_attn")] = np.concatenate(parts, axis=-1)
        elif not any(fused in name for fused in _FUSED):
            joined[name] = tensor
    return joined
