"""Networks and losses of a user's own, by Python path: "FILE.py:NAME" or "PACKAGE.MODULE:NAME"."""

import functools
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from flax import linen as nn
from flax import nnx

from kdjax.errors import UserError, did_you_mean
from kdjax.models.layers.from_linen import from_linen
from kdjax.models.layers.from_nnx import constructor_signature, from_nnx
from kdjax.types import Model

_LOG = logging.getLogger("kdjax")
_DERIVED = ("num_classes", "dtype", "axis_name", "vocab_size")  # passed where they are accepted


def is_path(name: str) -> bool:
    """Return whether a name is a Python path, and not that of a network or loss of kdjax."""
    return ":" in name


def file_of(name: str) -> Path | None:
    """Return the file of a "FILE.py:NAME"; None of a module."""
    source = name.rpartition(":")[0]
    return Path(os.path.expanduser(source)) if source.endswith(".py") else None


def load(name: str) -> Any:
    """Return an object of a user's file or module; a file is run once by each process.

    Raises:
      UserError: no such file, module or object; or its code fails.
    """
    file, (source, _, attribute) = file_of(name), name.rpartition(":")
    if file is None:
        module = _import_module(source)
    elif file.is_file():
        module = _module_of(file.resolve(), file.stat().st_mtime_ns)
    else:
        raise UserError(f"{name}: no file {file}")
    if not hasattr(module, attribute):
        own = [key for key, value in vars(module).items() if _is_own(value, module)]
        hint = did_you_mean(attribute, own) or f"it defines {', '.join(own) or 'nothing'}"
        raise UserError(f"{source} has no {attribute!r}; {hint.rstrip()}")
    if file is not None:
        _announce(file)
    return getattr(module, attribute)


def _is_own(value: Any, module: ModuleType) -> bool:
    is_code = inspect.isclass(value) or inspect.isfunction(value)
    return is_code and value.__module__ == module.__name__


@functools.lru_cache(maxsize=64)
def _module_of(path: Path, changed: int) -> ModuleType:
    """Run a file once; `changed`, the time of its last change, is part of the key."""
    del changed
    return run_file(path)


@functools.cache
def _announce(file: Path) -> None:
    _LOG.info("the code of %s was run", file)


def run_file(path: Path) -> ModuleType:
    """Run a Python file and return its module; the folder above its own may hold what it imports.

    Raises:
      UserError: it is no Python file, or it fails, with the line.
    """
    name = f"kdjax_file_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    if spec is None or spec.loader is None or path.suffix != ".py":
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up annotations
    try:
        with importable(path.resolve().parent.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(describe_failure(path, error)) from error
    return module


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let code import the files and packages of a folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


class _Uncached(SourceFileLoader):
    """Compiles a file each time: bytecode beside it could be that of an earlier text."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now."""
        return self.source_to_code(self.get_data(self.path), self.path)


def describe_failure(path: Path, error: Exception) -> str:
    """Describe an error that the code of a file raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else path
    return f"{where} fails: {type(error).__name__}: {' '.join(str(error).split())}"


def _import_module(name: str) -> ModuleType:
    try:
        with importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = f"no module {error.name!r}; install it or run from its folder"
        raise UserError(f"{name}: {missing}") from error
    except Exception as error:
        message = " ".join(str(error).split())
        raise UserError(f"{name} fails: {type(error).__name__}: {message}") from error


def build_network(name: str, options: Mapping[str, Any]) -> Model:
    """Build the network of a Python path.

    The path leads to a linen or NNX module, its class, a `Model`, or a function that returns one of
    them. A class or function is called with its own options, `rngs` of NNX, and those of
    `num_classes`, `dtype`, `axis_name` and `vocab_size` that it takes.

    Raises:
      UserError: from `load`; an option that it does not take or that is missing; it returns
        something else.
    """
    factory = load(name)
    if isinstance(factory, Model | nn.Module | nnx.Module):
        own = [option for option in options if option not in _DERIVED]
        if own:
            raise UserError(f"{name} is no function, so that it takes no option {own[0]!r}")
        return _to_model(name, factory)
    if not callable(factory):
        raise UserError(f"{name} is a {type(factory).__name__}; name a module or a function")
    parameters = constructor_signature(factory).parameters
    accepts_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [p for p in parameters if p not in ("parent", "name", "rngs")]  # the first two: Flax's
    options = {k: v for k, v in options.items() if k not in _DERIVED or k in known}
    for option in options:
        if option not in known and not accepts_all:
            own = ", ".join(key for key in known if key not in _DERIVED) or "none"
            raise UserError(f"{name} has no option {option!r}; it has {own}")
    for key, parameter in parameters.items():
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.default is parameter.empty and key not in (*options, "rngs"):
            raise UserError(f"{name} needs the option {key!r}; set model.{key}")
    if "rngs" in parameters:
        return from_nnx(lambda rngs: factory(**options, rngs=rngs))
    return _to_model(name, factory(**options))


def _to_model(name: str, network: Any) -> Model:
    if isinstance(network, nn.Module):
        return from_linen(network)
    if isinstance(network, nnx.Module):
        return from_nnx(network)
    if not isinstance(network, Model):
        raise UserError(
            f"{name} returns a {type(network).__name__}; return a module of flax.linen or "
            "flax.nnx, or a kdjax.types.Model"
        )
    return network


def default_options(name: str) -> dict[str, Any]:
    """Return the options of a network by Python path, with their defaults."""
    factory = load(name)
    parameters = constructor_signature(factory).parameters if callable(factory) else {}
    left_out = {"num_classes", "rngs", "name", "parent", "self"}
    return {
        key: None if entry.default is inspect.Parameter.empty else entry.default
        for key, entry in parameters.items()
        if key not in left_out
    }
