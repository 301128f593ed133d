"""Sets of the Hugging Face hub by name, with the library `datasets` (extra `hf`)."""

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdjax.data.split_files import Files, split_of
from kdjax.errors import UserError

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def is_hub_name(path: str, suffixes: Sequence[str]) -> bool:
    """Return whether `data.path` can be a name of the hub: OWNER/NAME, perhaps with :SUBSET.

    >>> is_hub_name("nyu-mll/glue:sst2", (".csv",)), is_hub_name("reviews.csv", (".csv",))
    (True, False)
    """
    is_name = _NAME.fullmatch(path) is not None and not path.startswith(".")
    return is_name and Path(path).suffix not in suffixes and not Path(path).exists()


@lru_cache(maxsize=1)
def download(name: str) -> Files:
    """Download a set, or take it from the cache of `datasets`, and return its .arrow files.

    Args:
        name: OWNER/NAME, or OWNER/NAME:SUBSET for a set of several subsets.

    Raises:
        UserError: no library `datasets`, no such set, no network.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"data.path={name} is no file or folder here; if it is a name of the Hugging Face hub: "
            "pip install 'kdjax[hf]'"
        ) from error
    repository, _, subset = name.partition(":")
    try:
        loaded: Any = datasets.load_dataset(repository, subset or None)
    except Exception as error:  # the library raises errors of several others
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"data.path={name} is no file or folder here, and the Hugging Face hub refuses it: "
            f"{reason}"
        ) from error
    splits: Files = {}
    for split, part in loaded.items():
        if known := split_of(split):
            splits[known] = tuple(Path(each["filename"]) for each in part.cache_files)
    if others := [split for split in loaded if not split_of(split)]:
        warnings.warn(f"data.path={name}: splits left out: {', '.join(others)}", stacklevel=4)
    return splits
