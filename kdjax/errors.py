"""The two errors that end a command, and the checks that raise them; free of jax."""

import difflib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
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

    >>> did_you_mean("cifar_10", ["cifar10", "mnist"])
    'did you mean cifar10? '
    >>> did_you_mean("augmnt", ["augment", "path"], prefix="data.")
    'did you mean data.augment? '
    """
    nearest = difflib.get_close_matches(name, [*known], 1, cutoff)
    return f"did you mean {prefix}{nearest[0]}? " if nearest else ""


def check_count(name: str, value: Any) -> None:
    """Refuse anything but a whole number of at least 1.

    Raises:
      UserError: with the name and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}; it must be a whole number >= 1")
