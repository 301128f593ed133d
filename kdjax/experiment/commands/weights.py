"""`python -m kdjax import`: convert PyTorch weights to a checkpoint for a role."""

from collections.abc import Callable

from kdjax.errors import UserError
from kdjax.models.io import import_torch
from kdjax.report.files import LocalPath


def import_weights(
    model: str,
    weights: LocalPath,
    out: LocalPath,
    say: Callable[[str], None],
    *,
    key: str | None,
    **images: str | None,
) -> None:
    """Convert a file of weights; `images`: the flags shape, mean, std, scale and classes."""
    names = images.pop("classes")
    numbers = {name: _numbers(name, text) for name, text in images.items()}
    form = import_torch.ImageFormat(
        shape=[int(x) for x in numbers["shape"] or ()],
        mean=numbers["mean"],
        std=numbers["std"],
        scale=(numbers["scale"] or [0.0])[0],
        class_names=[name.strip() for name in names.split(",")] if names else (),
    )
    summary = import_torch.import_weights(model, str(weights), out, form, key=key)
    say(f"{model} -> {out}: {summary}")


def _numbers(name: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(x) for x in text.split(",")]
    except ValueError:
        raise UserError(f"--{name}={text}: use numbers separated by commas") from None
