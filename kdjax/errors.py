"""The two errors that end a command, and the checks that raise them; free of jax."""

import difflib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

# What zipfile and numpy raise where bytes are wrong, or a header asks for more than there is.
CORRUPT_FILE_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    tokenize.TokenError,  # a header of an .npy with null bytes, since Python 3.12
    zlib.error,
)


class UserError(ValueError):
    """A mistake in a config, a file or a flag: one clear line, exit status 2."""


class RunError(RuntimeError):
    """A run that cannot go on (a non-finite loss, say): one clear line, exit status 1."""

    exit_status = 1


@contextmanager
def prefix_errors(prefix: str) -> Iterator[None]:
    """Put a prefix, such as the key that is at fault, before the text of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{prefix}{error}") from error


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is an int or a float; a bool is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """Return "did you mean X? " with the nearest known name after a prefix, or "" if none is near.

    Case does not count; among names that differ by case alone the first is taken.

    >>> did_you_mean("cifar_10", ["cifar10", "mnist"])
    'did you mean cifar10? '
    >>> did_you_mean("augmnt", ["augment", "path"], prefix="data.")
    'did you mean data.augment? '
    >>> did_you_mean("resnet18", ["resnet8", "resnet110", "ResNet18"])
    'did you mean ResNet18? '
    """
    by_lower = {each.lower(): each for each in reversed([*known])}
    nearest = difflib.get_close_matches(name.lower(), by_lower, 1, cutoff)
    return f"did you mean {prefix}{by_lower[nearest[0]]}? " if nearest else ""


def check_layer(where: str, layer: str, layers: Collection[str]) -> None:
    """Refuse a layer that the network does not have; the UserError names those that it has."""
    if layer not in layers:
        known = ", ".join(sorted(layers)) or "none"
        raise UserError(f"{where}: no layer {layer!r}; the network has {known}")


def check_entries(reader: str, names: Iterable[str], batch: Collection[str]) -> None:
    """Refuse a batch without an entry that is read; the UserError names those that it has."""
    for name in names:
        if name not in batch:
            raise UserError(f'{reader} reads batch["{name}"], but the batch has {sorted(batch)}')


def check_count(name: str, value: Any) -> None:
    """Refuse anything but a whole number of at least 1.

    Raises:
      UserError: with the name and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}; it must be a whole number >= 1")
