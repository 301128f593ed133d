"""Networks by name, each a pair of pure functions (`kdjax.types.Model`)."""

from kdjax.models import lipschitz
from kdjax.models.detection.backbones import with_backbone
from kdjax.models.detection.faster_rcnn import REGION_KEYS
from kdjax.models.io.convert import flatten, from_safetensors, restore, to_safetensors, to_torch
from kdjax.models.io.huggingface import load_huggingface, save_huggingface
from kdjax.models.layers.from_linen import from_linen
from kdjax.models.layers.from_nnx import from_nnx
from kdjax.models.lipschitz import pair_critic
from kdjax.models.lipschitz.mlp import lipschitz_mlp_bound
from kdjax.models.registry import (
    build,
    build_language_model,
    load_torch,
    names,
    parameter_count,
    torch_options,
)
from kdjax.models.text.generate import Generated, Sampling, generate
from kdjax.models.text.language_model import as_language_model, read_tokenizer_entry
from kdjax.models.text.layer_selection import select_layers
from kdjax.models.text.multiple_choice import ENCODE_ONCE, REPEAT_PROMPT, PromptFormat, with_choices
from kdjax.models.wrappers.adapters import (
    Adapter,
    fusion_adapter,
    linear_adapter,
    norm_direction_adapter,
    with_adapters,
)
from kdjax.models.wrappers.class_means import attach_class_means, strip_wrappers, with_class_means
from kdjax.models.wrappers.connector import connector_adapter
from kdjax.models.wrappers.encoder import EMBEDDING, as_encoder
from kdjax.models.wrappers.output_cache import ROW, attach_cache, with_cache
from kdjax.models.wrappers.parameters import with_parameters
from kdjax.models.wrappers.remat import with_remat
from kdjax.models.wrappers.second_view import VIEW, with_second_view

__all__ = [
    "EMBEDDING",
    "ENCODE_ONCE",
    "REGION_KEYS",
    "REPEAT_PROMPT",
    "ROW",
    "VIEW",
    "Adapter",
    "Generated",
    "PromptFormat",
    "Sampling",
    "as_encoder",
    "as_language_model",
    "attach_cache",
    "attach_class_means",
    "build",
    "build_language_model",
    "connector_adapter",
    "flatten",
    "from_linen",
    "from_nnx",
    "from_safetensors",
    "fusion_adapter",
    "generate",
    "linear_adapter",
    "lipschitz",
    "lipschitz_mlp_bound",
    "load_huggingface",
    "load_torch",
    "names",
    "norm_direction_adapter",
    "pair_critic",
    "parameter_count",
    "read_tokenizer_entry",
    "restore",
    "save_huggingface",
    "select_layers",
    "strip_wrappers",
    "to_safetensors",
    "to_torch",
    "torch_options",
    "with_adapters",
    "with_backbone",
    "with_cache",
    "with_choices",
    "with_class_means",
    "with_parameters",
    "with_remat",
    "with_second_view",
]
