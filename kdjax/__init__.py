"""Knowledge distillation beyond one KL, as pure jitted functions."""

import importlib
from types import ModuleType

__version__ = "0.2.0"

_PUBLIC = ("bounds", "calibration", "data", "distill", "errors", "losses", "models", "types")


def __getattr__(name: str) -> ModuleType:
    """Import a public module when it is first used: `import kdjax` alone starts no jax."""
    if name in _PUBLIC:
        return importlib.import_module(f"kdjax.{name}")
    raise AttributeError(f"module 'kdjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_PUBLIC]
