"""Lets kdjax be imported where only jax and flax are installed; and PyTorch's side.

Importing this module puts kdjax's folder on the path, and empty modules in place of those that
kdjax imports without using them in a step.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class _AnyType(type):
    def __getitem__(cls, _: Any) -> type:
        return object


class _Annotation(metaclass=_AnyType):
    """Takes the place of jaxtyping's types, which are checked in tests only."""


def _annotation(name: str) -> type:
    if name.startswith("__"):  # `inspect`, which PyTorch uses, reads `__file__` of all modules
        raise AttributeError(name)
    return _Annotation


def _stand_in() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if importlib.util.find_spec("jaxtyping") is None:
        module = types.ModuleType("jaxtyping")
        module.__getattr__ = _annotation  # pyright: ignore
        sys.modules["jaxtyping"] = module
    if importlib.util.find_spec("safetensors") is None:
        package, numpy = (types.ModuleType(n) for n in ("safetensors", "safetensors.numpy"))
        package.numpy = numpy  # pyright: ignore
        sys.modules |= {"safetensors": package, "safetensors.numpy": numpy}


_stand_in()


def torch_version() -> str | None:
    """Return PyTorch's version, or None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch.__version__


def torch_calls(work: Any, batch: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Return PyTorch's calls of the same step, by the name of their time; {} without PyTorch."""
    if torch_version() is None:
        return {}
    import torch_pairs

    return torch_pairs.step_calls(work, batch)


def torch_sinkhorn(s: np.ndarray, t: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return PyTorch's call of SinKD's loss; {} without PyTorch."""
    if torch_version() is None:
        return {}
    import torch_pairs

    return {"torch_ms": torch_pairs.sinkhorn_call(s, t)}
