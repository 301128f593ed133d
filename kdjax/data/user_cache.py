"""Files that kdjax derives from data, in `$XDG_CACHE_HOME/kdjax` (~/.cache/kdjax)."""

import os
import tempfile
from pathlib import Path


def folder(name: str) -> Path:
    """Return the folder of a kind of file; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "kdjax" / name


def write(file: Path, text: str) -> None:
    """Write a file so that another process never reads a part of it.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as part:
        part.write(text)
    os.replace(part.name, file)
