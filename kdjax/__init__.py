"""Knowledge distillation beyond one KL, as pure jitted functions."""

import importlib
from typing import Any

__version__ = "0.2.0"

_PUBLIC = ("bounds", "calibration", "data", "distill", "errors", "losses", "models", "types")


def __getattr__(name: str) -> Any:
    """Import a public module, or `load`, when it is first used: `import kdjax` starts no jax."""
    if name == "load":
        return importlib.import_module("kdjax.evaluation.predictor").load
    if name in _PUBLIC:
        return importlib.import_module(f"kdjax.{name}")
    raise AttributeError(f"module 'kdjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", "load", *_PUBLIC]
