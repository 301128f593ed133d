"""The two ways in which kdjax stops; free of jax, so that reports can import it."""

import struct
import tokenize
import zipfile
import zlib

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
