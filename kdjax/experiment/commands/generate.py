"""`python -m kdjax generate`: continue prompts by a decoder, exported or of Hugging Face."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.data.language.tokenizers import start_id
from kdjax.data.text.tokenize import Tokenizer
from kdjax.data.text.tokenizer_folder import read_tokenizer
from kdjax.errors import UserError, prefix_errors
from kdjax.models import Sampling
from kdjax.models.io import export
from kdjax.models.io.huggingface_folder import read_config
from kdjax.models.transformers import FAMILIES
from kdjax.types import Model, Variables


def generate(folder: Path, prompts: Sequence[str], sampling: Sampling, seed: int) -> list[str]:
    """Return the completion of each prompt.

    A prompt is read behind the token that begins a text: what the tokenizer adds, else the end of a
    text. The completion ends before the end of a text.

    Args:
      folder: of an export, or of Hugging Face, with a tokenizer.
      prompts: texts, "" among them.
      sampling: without `eos_id`, which is the tokenizer's.
      seed: of the draws.

    Raises:
      UserError: no decoder, no tokenizer, or prompts and new tokens that exceed its positions.
    """
    model, variables = _read_decoder(folder)
    tokenizer = read_tokenizer(folder, "--model")
    rows = [_encode(tokenizer, prompt) for prompt in prompts]
    shape = (len(rows), max(map(len, rows)))
    batch = {name: np.zeros(shape, np.int32) for name in ("input_ids", "attention_mask")}
    for number, row in enumerate(rows):
        batch["input_ids"][number, : len(row)] = row
        batch["attention_mask"][number, : len(row)] = 1
    rule = sampling._replace(eos_id=tokenizer.end_id)

    @jax.jit
    def run(variables: Variables, batch: Any, key: Any) -> models.Generated:
        return models.generate(model, variables, batch, key, rule)

    with prefix_errors(f"--model={folder}: "):
        new = jax.device_get(run(variables, batch, jax.random.key(seed)))
    texts = (ids[mask > 0].tolist() for ids, mask in zip(new.ids, new.mask, strict=True))
    return [tokenizer.encoder.decode(ids, skip_special_tokens=True) for ids in texts]


def _read_decoder(folder: Path) -> tuple[Model, Variables]:
    """Read a decoder's logits of tokens, whatever the task of its training."""
    config = read_config(folder) if (folder / "config.json").is_file() else {}
    if "model_type" in config:
        _check_family(folder, config["model_type"])
        return models.load_huggingface(folder)
    table = dict(export.describe(folder)["model"])
    name = table.pop("name")
    _check_family(folder, name)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    family = FAMILIES[name]
    return family.factory(family.options(**options)), export.restore(folder)[1]


def _check_family(folder: Path, name: str) -> None:
    decoders = [key for key, family in FAMILIES.items() if family.prompt is models.REPEAT_PROMPT]
    if name not in decoders:
        raise UserError(
            f"--model={folder} holds a {name}, which generates no text; there are "
            f"{', '.join(decoders)}"
        )


def _encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
    first = start_id(tokenizer)
    ids = [first] * (first is not None) + tokenizer.encoder.encode(
        prompt, add_special_tokens=False
    ).ids
    if not ids:
        raise UserError("--prompt is empty, and the tokenizer has no token that begins a text")
    return ids
