"""Transformers by name: the factory of each, its options, and the prompts that it answers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kdjax.models.text.bert import BertOptions, bert
from kdjax.models.text.gpt_neo import GptNeoOptions, gpt_neo
from kdjax.models.text.llama import LlamaOptions, llama
from kdjax.models.text.multiple_choice import ENCODE_ONCE, REPEAT_PROMPT, PromptFormat
from kdjax.models.text.t5 import T5Options, t5
from kdjax.models.vision.vit import VitOptions, vit
from kdjax.types import Model


class Family(NamedTuple):
    """Networks of one kind.

    `factory(options(...))` makes one; `prompt` is that of a model of tokens, which ranks answers.
    """

    factory: Callable[[Any], Model]
    options: Callable[..., Any]
    prompt: PromptFormat | None = None


def _with(options: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    return functools.partial(options, **defaults)


def _vit(size: str, **options: Any) -> Family:
    width, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12), "large": (1024, 16)}[
        size
    ]
    layers = 24 if size == "large" else 12
    sizes = {"image_size": 224, "width": width, "num_heads": heads, "num_layers": layers}
    return Family(vit, _with(VitOptions, **{**sizes, **options}))


# by the names of config.json's model_type
FAMILIES: Mapping[str, Family] = {
    "bert": Family(bert, BertOptions),
    "distilbert": Family(bert, _with(BertOptions, token_types=0, pooler="relu", head_dropout=0.2)),
    "roberta": Family(
        bert,
        _with(
            BertOptions,
            vocab_size=50265,
            max_length=514,
            first_position=2,
            token_types=1,
            pooler_dropout=None,
            epsilon=1e-5,
        ),
    ),
    "t5": Family(t5, T5Options, ENCODE_ONCE),
    "gpt_neo": Family(gpt_neo, GptNeoOptions, REPEAT_PROMPT),
    "gpt2": Family(
        gpt_neo,
        _with(GptNeoOptions, max_length=1024, layers="global", scaled=True, attention_bias=True),
        REPEAT_PROMPT,
    ),
    "llama": Family(llama, LlamaOptions, REPEAT_PROMPT),
    "mistral": Family(llama, _with(LlamaOptions, window=4096), REPEAT_PROMPT),
    "qwen2": Family(
        llama,
        _with(LlamaOptions, vocab_size=151_936, attention_bias=True),
        REPEAT_PROMPT,
    ),
    "qwen3": Family(
        llama,
        _with(LlamaOptions, vocab_size=151_936, head_width=128, head_norm=True),
        REPEAT_PROMPT,
    ),
    "vit": Family(vit, VitOptions),
    "deit": Family(vit, _with(VitOptions, distilled=True)),
}
# by the names of timm and torchvision
VISION: Mapping[str, Family] = {
    **{f"vit_{size}_patch16_224": _vit(size) for size in ("tiny", "small", "base", "large")},
    **{f"deit_{size}_patch16_224": _vit(size) for size in ("tiny", "small", "base")},
    **{
        f"deit_{size}_distilled_patch16_224": _vit(size, distilled=True)
        for size in ("tiny", "small", "base")
    },
    "vit_b_16": _vit("base"),
    "vit_b_32": _vit("base", patch_size=32),
}
TRANSFORMERS: Mapping[str, Family] = {**FAMILIES, **VISION}
