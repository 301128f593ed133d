"""`python -m kdjax generate`: continue prompts by a decoder, exported or of Hugging Face."""

from collections.abc import Sequence

from kdjax import models
from kdjax.data.text.tokenizer_folder import read_tokenizer
from kdjax.errors import UserError, prefix_errors
from kdjax.evaluation.text_samples import completer
from kdjax.models import Sampling
from kdjax.models.io import export
from kdjax.models.io.huggingface_folder import read_config
from kdjax.models.transformers import FAMILIES
from kdjax.report import files
from kdjax.report.files import LocalPath
from kdjax.types import Model, Variables


def generate(folder: LocalPath, prompts: Sequence[str], sampling: Sampling, seed: int) -> list[str]:
    """Return the completion of each prompt.

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
    with prefix_errors(f"--model={folder}: "):
        return completer(model, tokenizer)(variables, prompts, sampling, seed)


def _read_decoder(folder: LocalPath) -> tuple[Model, Variables]:
    """Read a decoder's logits of tokens, whatever the task of its training."""
    config = read_config(folder) if files.exists(folder / "config.json") else {}
    if "model_type" in config:
        _check_family(folder, config["model_type"])
        return models.load_huggingface(folder)
    table = dict(export.describe(folder)["model"])
    name = table.pop("name")
    _check_family(folder, name)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    family = FAMILIES[name]
    return family.factory(family.options(**options)), export.restore(folder)[1]


def _check_family(folder: LocalPath, name: str) -> None:
    decoders = [key for key, family in FAMILIES.items() if family.prompt is models.REPEAT_PROMPT]
    if name not in decoders:
        raise UserError(
            f"--model={folder} holds a {name}, which generates no text; there are "
            f"{', '.join(decoders)}"
        )
