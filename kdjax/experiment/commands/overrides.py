"""Reading an experiment file and its `--config.key=value` overrides."""

import ast
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from kdjax.distill import critics
from kdjax.errors import UserError, did_you_mean, prefix_errors
from kdjax.experiment.config import resolve
from kdjax.experiment.config.schema_lookup import flag_type
from kdjax.models import registry, user_code
from kdjax.train import sweep

SWEEP = "--config.sweep."
# options of a network that a Hugging Face folder describes; see `build/folders.py`
_OF_FOLDERS = {"path": "", "from_scratch": False}


class LoadedConfig(NamedTuple):
    """The config of an experiment file with overrides, and the first line of its docstring."""

    title: str
    config: dict[str, Any]


def read(file: str, overrides: Sequence[str]) -> LoadedConfig:
    """Load `FILE.py` or `FILE.py:ARG`, fill in defaults and apply overrides.

    Args:
      file: an experiment with `get_config(arg="")`.
      overrides: "--config.path=value" strings; "--config.sweep.path=[values]" may name a path
        that the file does not sweep.

    Raises:
      UserError: no such file, a file that fails, an unknown key, a value of the wrong type, a key
        that is swept.
    """
    path, arg = _split(file)
    title, mapping = _load(path, arg)
    if "study" in mapping:
        raise UserError(f"--config: {path} is a study; run it with `python -m kdjax study`")
    config = resolve.to_dict(resolve.from_dict(mapping, str(path)))
    sweeps = [text for text in overrides if text.startswith(SWEEP)]
    config["sweep"] |= dict(map(_parse_sweep, sweeps))
    rest = [text for text in overrides if text not in sweeps]
    _add_options(config["roles"], rest)
    loaded = LoadedConfig(title, _override(config, rest))
    for text in rest:
        _check_effect(config, text)
    return loaded


def _check_effect(config: Mapping[str, Any], text: str) -> None:
    """Refuse an override of a swept key, and warn of one that variants set themselves."""
    path, _, value = text.removeprefix("--config.").partition("=")
    if swept := _sweeping(config["sweep"], path):
        raise UserError(f"{text}: {swept} is swept; set {SWEEP}{swept}='[{value}]'")
    variants = config["variants"] or {}
    own = [
        name
        for name, table in variants.items()
        if _sweeping(table.get("sweep") or {}, path) or _sets(table, path.split("."))
    ]
    if own:
        names = _list(own[:3]) + (" and others" if own[3:] else "")
        warnings.warn(f"{text} does not change {names}, with values of their own", stacklevel=4)


def _sweeping(table: Mapping[str, Any], path: str) -> str | None:
    """Return the swept path that names a key."""
    naming = (p for p, values in table.items() if values is not None and sweep.matches(p, path))
    return next(naming, None)


def _sets(table: Any, parts: Sequence[str]) -> bool:
    """Return whether a variant has a value of its own at a path."""
    for part in parts:
        if not isinstance(table, Mapping):
            return table is not None
        if part not in table:
            return False
        table = table[part]
    return True


def replace_data(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of a workdir with other data.

    Raises:
      UserError: an override of a key outside `data`, and as `read`.
    """
    for text in overrides:
        if text.startswith("--config.") and not text.startswith("--config.data."):
            raise UserError(
                f"{text}: eval takes --config.data.KEY=VALUE alone, for other test data"
            )
    return _override(config, overrides)


def choose_variants(loaded: LoadedConfig, names: Sequence[str]) -> LoadedConfig:
    """Return a config with some of its variants alone, in the config's order.

    Raises:
      UserError: no such variant, or one that starts from another that is left out.
    """
    tables = resolve.variants(loaded.config) if loaded.config["variants"] else {}
    for name in names:
        if name not in tables:
            hint = did_you_mean(name, tables)
            raise UserError(f"--variants={name}: no such variant; {hint}there are {_list(tables)}")
        for role, table in tables[name]["roles"].items():
            source = (table or {}).get("from_variant")
            if source is not None and source not in names:
                raise UserError(
                    f"--variants: {role} of {name} starts from {source}; add it: "
                    f"--variants={','.join([source, *names])}"
                )
    variants = {n: v for n, v in loaded.config["variants"].items() if n in names}
    return loaded._replace(config={**loaded.config, "variants": variants})


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def read_study(file: str, overrides: Sequence[str]) -> LoadedConfig | None:
    """Load a file whose config has a `study` key; None if it has none: a training config.

    Raises:
      UserError: as `read`.
    """
    title, settings = _load(*_split(file))
    return LoadedConfig(title, _override(settings, overrides)) if "study" in settings else None


def _split(file: str) -> tuple[Path, str]:
    """Split `FILE.py:ARG`; a folder's name may contain a colon, and ~ is the home folder."""
    path, suffix, arg = file.partition(".py:")
    return Path(os.path.expanduser(path + suffix.removesuffix(":"))), arg


def _load(path: Path, arg: str) -> tuple[str, dict[str, Any]]:
    """Return the title of an experiment file and its config."""
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        files = {file.name: str(file) for file in sorted(folder.glob("[!_]*.py"))}
        hint = did_you_mean(path.name, files, prefix=f"{folder}/").rstrip()
        hint = hint or f"there are {', '.join(files.values()) or 'none'}"
        raise UserError(f"--config: no file {path}; {hint}")
    with prefix_errors("--config: "):
        module = user_code.run_file(path)  # may import its siblings
    try:
        with user_code.importable(path.resolve().parent.parent):
            config = module.get_config(arg) if hasattr(module, "get_config") else None
    except Exception as error:
        raise UserError(f"--config: {user_code.describe_failure(path, error)}") from error
    if not isinstance(config, ConfigDict | Mapping):
        raise UserError(
            f"--config: {path} must have a get_config(arg='') that returns a ConfigDict; "
            "see experiments/ for examples"
        )
    title = (module.__doc__ or "").strip().split("\n")[0] or path.stem
    return title, config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def _parse_sweep(text: str) -> tuple[str, tuple[Any, ...] | dict[str, Any]]:
    """Parse `--config.sweep.PATH=VALUES`; the path with its dots is one key."""
    path, _, literal = text.removeprefix(SWEEP).partition("=")
    try:
        values = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        values = None
    if isinstance(values, dict) and values:
        return path, values
    if not isinstance(values, tuple | list):
        raise UserError(
            f"{text}: write the values as a list, {SWEEP}{path}=[0.1, 0.3], or a distribution, "
            f"{SWEEP}{path}=\"{{'log_uniform': (0.01, 1)}}\""
        )
    return path, tuple(values)


def _to_config_dict(tree: Mapping[str, Any], prefix: str) -> ConfigDict:
    """Return a ConfigDict in the same order; values that are None have a type."""
    dotted = prefix.split(".")[-1] == "sweep"
    table = ConfigDict(sort_keys=False, allow_dotted_keys=dotted)
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            table[key] = _to_config_dict(value, path)
        elif value is None:
            table[key] = config_dict.placeholder(flag_type(path) or object)
        elif flag_type(path) is object:
            table[key] = config_dict.FieldReference(value, field_type=object)
        else:
            table[key] = tuple(value) if isinstance(value, list) else value
    return table


def _add_options(roles: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Add the options of networks and critics that overrides set, with their defaults."""
    values = {name: value for name, _, value in (text.partition("=") for text in overrides)}
    for role, table in roles.items():
        prefix, model = f"--config.roles.{role}.model.", table["model"]
        name = str(values.get(f"{prefix}name", model["name"]))
        options: Mapping[str, Any] = _OF_FOLDERS if name == "huggingface" else {}
        is_network = name in registry.names() or user_code.is_path(name)
        if is_network or name in critics.names():
            known = registry if is_network else critics
            options = known.default_options(name)
        if options:
            model |= {
                k: v for k, v in options.items() if f"{prefix}{k}" in values and k not in model
            }


def _override(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    table = _to_config_dict(config, "")
    for text in overrides:
        _check_key(table, text)
    values = flags.FlagValues()
    argv = ["kdjax", *overrides]
    config_flags.DEFINE_config_dict("config", table, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        message = " ".join(str(error).split()).removeprefix("flag ")
        raise UserError(message + _expected_type(table, message)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no override; write --config.key=value")
    return cast(ConfigDict, values["config"].value).to_dict()


def _expected_type(table: ConfigDict, message: str) -> str:
    """Return the type of the key at the beginning of a message of the flags library."""
    name, equals, _ = message.partition("=")
    *parents, last = name.removeprefix("--config.").split(".")
    node: Any = table
    for part in parents:
        node = node[part] if isinstance(node, ConfigDict) and part in node else None
    if not equals or not isinstance(node, ConfigDict) or last not in node:
        return ""
    return f"; it must be of type {node.get_type(last).__name__}"


def _check_key(table: ConfigDict, text: str) -> None:
    """Refuse an unknown key in one line; the flags library would print a traceback."""
    name, equals, _ = text.partition("=")
    if not name.startswith("--config."):
        raise UserError(f"unknown argument {text}; see --help")
    if not equals:
        raise UserError(f"{text} has no value; write {text}=VALUE")
    if "[" in name:
        return
    node: Any = table
    path: list[str] = []
    for part in name.removeprefix("--config.").split("."):
        if not isinstance(node, ConfigDict):
            raise UserError(f"--config.{'.'.join(path)} is a value and has no key {part!r}")
        if part not in node:
            unknown = ".".join([*path, part])
            hint = resolve.nearest(unknown, node.keys(), "--config.")
            raise UserError(f"unknown key --config.{unknown}; {hint}")
        node = node[part]
        path.append(part)
