"""An experiment file and its `--config.key=value` overrides, typed, with one-line errors."""

import ast
import difflib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from kdjax.experiment.build.build import complete
from kdjax.experiment.config.keys import flag_type
from kdjax.experiment.config.resolve import nearest
from kdjax.types import UserError

SWEEP = "--config.sweep."


class Experiment(NamedTuple):
    """A file's config, completed and overridden, and the first line of its docstring."""

    title: str
    config: dict[str, Any]


def read(file: str, overrides: Sequence[str]) -> Experiment:
    """Load `FILE.py` or `FILE.py:ARG` and apply overrides.

    Args:
      file: an experiment with `get_config(arg="")`.
      overrides: "--config.path=value" strings; "--config.sweep.path=[values]" may name a path
        that the file does not sweep.

    Raises:
      UserError: no such file, a file that fails, an unknown key, a value of the wrong type.
    """
    path, _, arg = file.partition(":")
    title, given = _load(Path(path), arg)
    if "study" in given:
        raise UserError(f"--config: {path} trains nothing; run it by `python -m kdjax study`")
    whole = complete(given, path)
    swept = [text for text in overrides if text.startswith(SWEEP)]
    whole["sweep"] = {**whole["sweep"], **dict(_swept(text) for text in swept)}
    table = _to_config_dict(whole, "")
    rest = [text for text in overrides if text not in swept]
    return Experiment(title, _override(table, rest).to_dict())


def read_study(file: str, overrides: Sequence[str]) -> Experiment | None:
    """Load a file whose config has a `study` key; None if it has none: a training config.

    Raises:
      UserError: as `read`.
    """
    path, _, arg = file.partition(":")
    title, given = _load(Path(path), arg)
    if "study" not in given:
        return None
    plain = given.to_dict() if isinstance(given, ConfigDict) else given
    return Experiment(title, _override(_to_config_dict(plain, ""), overrides).to_dict())


def _load(path: Path, arg: str) -> tuple[str, ConfigDict | Mapping[str, Any]]:
    """The title of an experiment file and what its get_config returns."""
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        names = sorted(p.name for p in folder.glob("*.py") if p.name[0] != "_")
        near = difflib.get_close_matches(path.name, names, n=3) or names
        hint = f"; there are {', '.join(str(folder / name) for name in near)}" if near else ""
        raise UserError(f"--config: no file {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"kdjax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    root = str(path.resolve().parent.parent)  # experiments may import their siblings
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        given = module.get_config(arg) if hasattr(module, "get_config") else None
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin
        ]
        where = f"{path}, line {lines[-1]}" if lines else path
        said = " ".join(str(error).split())
        raise UserError(f"--config: {where} fails: {type(error).__name__}: {said}") from error
    finally:
        sys.path.remove(root)
    if not isinstance(given, ConfigDict | Mapping):
        raise UserError(
            f"--config: {path} must have a get_config(arg='') that returns a ConfigDict; "
            "see experiments/ for examples"
        )
    return (module.__doc__ or "").strip().split("\n")[0] or path.stem, given


def _swept(text: str) -> tuple[str, tuple[Any, ...]]:
    """Read `--config.sweep.PATH=VALUES`, whose path is a key of its own, dots and all."""
    path, _, said = text.removeprefix(SWEEP).partition("=")
    try:
        values = ast.literal_eval(said)
    except (ValueError, SyntaxError):
        values = None
    if not isinstance(values, tuple | list):
        raise UserError(f"{text}: write the values as a list, {SWEEP}{path}=[0.1, 0.3]")
    return path, tuple(values)


def _to_config_dict(tree: Mapping[str, Any], prefix: str) -> ConfigDict:
    """A ConfigDict in the same order, whose unset values know their types."""
    dotted = prefix.split(".")[-1] == "sweep"
    found = ConfigDict(sort_keys=False, allow_dotted_keys=dotted)
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            found[key] = _to_config_dict(value, path)
        elif value is None:
            found[key] = config_dict.placeholder(flag_type(path) or object)
        elif flag_type(path) is object:
            found[key] = config_dict.FieldReference(value, field_type=object)
        else:
            found[key] = tuple(value) if isinstance(value, list) else value
    return found


def _override(table: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    for text in overrides:
        _check_key(table, text)
    values = flags.FlagValues()
    argv = ["kdjax", *overrides]
    config_flags.DEFINE_config_dict("config", table, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split()).removeprefix("flag ")
        raise UserError(said + _right(table, said)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no override; write --config.key=value")
    return cast(ConfigDict, values["config"].value)


def _right(table: ConfigDict, said: str) -> str:
    """The type that an override should have had, from the flags library's complaint."""
    name, equals, _ = said.partition("=")
    *parents, last = name.removeprefix("--config.").split(".")
    node: Any = table
    for part in parents:
        node = node[part] if isinstance(node, ConfigDict) and part in node else None
    if not equals or not isinstance(node, ConfigDict) or last not in node:
        return ""
    return f"; it must be of type {node.get_type(last).__name__}"


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
            wrong = ".".join([*done, part])
            hint = nearest(wrong, node.keys(), "--config.")
            raise UserError(f"unknown key --config.{wrong}; {hint}")
        node = node[part]
        done.append(part)
