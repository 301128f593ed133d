"""An experiment file and its `--config.key=value` overrides, typed, with one-line errors."""

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from kdjax.build import complete
from kdjax.config import OPTIONAL, check
from kdjax.types import UserError


class Experiment(NamedTuple):
    """A file's config, completed and overridden, and the first line of its docstring."""

    title: str
    config: dict[str, Any]


def read(file: str, overrides: Sequence[str]) -> Experiment:
    """Load `FILE.py` or `FILE.py:ARG` and apply overrides.

    Args:
      file: an experiment with `get_config(arg="")`.
      overrides: "--config.path=value" strings.

    Raises:
      UserError: no such file, a file that fails, an unknown key, a value of the wrong type.
    """
    path, _, arg = file.partition(":")
    module = _load(Path(path))
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config(arg=''); see experiments/ for examples")
    given = module.get_config(arg)
    lines = (module.__doc__ or "").strip().split("\n")
    whole = complete(given)
    check(whole, path)
    table = _to_config_dict(whole, "")
    return Experiment(lines[0] or Path(path).stem, _override(table, overrides).to_dict())


def _load(path: Path) -> Any:
    if not path.is_file():
        near = sorted(p.as_posix() for p in path.parent.glob("*.py") if p.name[0] != "_")
        hint = f"; there are {', '.join(near)}" if near else ""
        raise UserError(f"--config: no file {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"kdjax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"--config: {path} fails: {type(error).__name__}: {error}") from error
    return module


def _to_config_dict(tree: Mapping[str, Any], prefix: str) -> ConfigDict:
    """A ConfigDict in the same order, whose unset values know their types."""
    dotted = prefix.split(".")[-1] == "sweep"
    found = ConfigDict(sort_keys=False, allow_dotted_keys=dotted)
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            found[key] = _to_config_dict(value, path)
        elif value is None:
            kind = OPTIONAL.get(_pattern(path), object)
            found[key] = config_dict.placeholder(object if isinstance(kind, tuple) else kind)
        elif OPTIONAL.get(_pattern(path)) and isinstance(OPTIONAL[_pattern(path)], tuple):
            found[key] = config_dict.FieldReference(value, field_type=object)
        else:
            found[key] = tuple(value) if isinstance(value, list) else value
    return found


def _pattern(path: str) -> str:
    parts = path.split(".")
    if parts[0] == "roles" and len(parts) > 2:
        parts[1] = "*"
        if parts[2] == "terms" and len(parts) > 3:
            parts[3] = "*"
    return ".".join(parts)


def _override(table: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    for text in overrides:
        _check_key(table, text)
    values = flags.FlagValues()
    argv = ["kdjax", *overrides]
    config_flags.DEFINE_config_dict("config", table, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no override; write --config.key=value")
    return values["config"].value


def _check_key(table: ConfigDict, text: str) -> None:
    """Name the nearest key before the flags library answers with a traceback."""
    name, equals, _ = text.partition("=")
    if not name.startswith("--config."):
        raise UserError(f"unknown argument {text}; see --help")
    if not equals:
        raise UserError(f"{text} has no value; write {text}=VALUE")
    if "[" in name:
        return
    node: Any = table
    done: list[str] = []
    for part in name.removeprefix("--config.").split("."):
        if not isinstance(node, ConfigDict):
            raise UserError(f"--config.{'.'.join(done)} is a value, it has no {part!r} inside")
        if part not in node:
            known = list(node.keys())
            near = difflib.get_close_matches(part, known, n=1)
            hint = ".".join([*done, near[0]]) if near else ""
            said = f"did you mean --config.{hint}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"unknown key --config.{'.'.join([*done, part])}; {said}")
        node = node[part]
        done.append(part)
