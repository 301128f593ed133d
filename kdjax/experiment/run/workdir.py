"""The folder of a run, on a disk or in a bucket: its config, and JSON files."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import jax

from kdjax import __version__
from kdjax.errors import UserError
from kdjax.experiment.config.resolve import differences, from_dict, to_dict
from kdjax.experiment.config.schema import Config
from kdjax.experiment.run.lock import occupy
from kdjax.report import files
from kdjax.report.files import Path
from kdjax.train import multihost
from kdjax.types import Source

# Keys that may differ when a run is resumed: they change speed and placement; numbers change by
# rounding, and with dropout under pmap by the masks, which each device draws itself.
MAY_CHANGE = (
    "checkpoint_every",
    "data.workers",
    "devices",
    "keep_best",
    "keep_checkpoints",
    "members_in_turn",
    "members_over_devices",
    "members_per_program",
    "parallel",
    "steps_per_dispatch",
    "tensorboard",
)

_TITLE = re.compile(r"(variants\.[^.]+\.)?title: ")  # of reports


def versions() -> dict[str, str]:
    """Return the versions of libraries, and the commit of kdjax if it runs from a checkout."""
    numbers = {"python": platform.python_version(), "kdjax": __version__}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy"):
        numbers[name] = importlib.metadata.version(name)
    git = ["git", "-C", os.path.dirname(__file__), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
        numbers["commit"] = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return numbers


def device() -> str:
    """Return the name and number of the devices, "cpu x1"."""
    return f"{jax.devices()[0].device_kind} x{jax.device_count()}"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, in the first process."""
    if not multihost.is_first():
        return
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a file that `write_json` wrote; refuse a damaged one."""
    try:
        return json.loads(files.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a file that cannot be read."""
    return UserError(f"{path} is damaged ({error}); restore it or remove the workdir")


def plain(value: Any) -> Any:
    """Convert a value to JSON types: a config to dicts, tuples to lists."""
    return json.loads(json.dumps(to_dict(value) if isinstance(value, Config) else value))


@contextmanager
def open_run(
    workdir: Path, config: Config, command: str, source: Source, *, allow_changed_data: bool
) -> Iterator[None]:
    """Lock and adopt a workdir; with several processes only the first does so.

    A new run reads every picture of its data once.

    Raises:
      UserError: the errors of `occupy`, `adopt`, `check_data` and `Source.verify`, in every
        process; processes with different configs or data.
    """
    for name, content in (("configs", plain(config)), ("data", source.digest)):
        if not multihost.all_equal(json.dumps(content, sort_keys=True)):
            raise UserError(f"the processes of this run have different {name}; all need the same")
    with ExitStack() as held:

        def begin() -> None:
            if source.verify is not None and not files.exists(workdir / "config.json"):
                source.verify()
            held.enter_context(occupy(workdir))
            adopt(workdir, config, command, source.digest, allow_changed_data=allow_changed_data)

        multihost.run_on_first(begin)
        if not multihost.all_true(files.exists(workdir / "config.json")):
            raise UserError(
                f"workdir {workdir} is not the same folder in all processes; use a shared one"
            )
        yield


def adopt(
    workdir: Path,
    config: Config,
    command: str,
    data: Mapping[str, str],
    *,
    allow_changed_data: bool = False,
) -> None:
    """Write config.json into a new workdir, or check an old one's config and data.

    Args:
      workdir: the folder.
      config: the config of the run.
      command: the command that started it.
      data: `Source.digest`.
      allow_changed_data: whether the run may continue with other data.

    A finished run whose `num_steps` alone has grown is extended.

    Raises:
      UserError: the workdir belongs to another config (the error lists the differing keys) or to
        other data, or contains something that is no run; a run that cannot be extended.
    """
    path = workdir / "config.json"
    if files.exists(path):
        old, new = _with_defaults(read_config(workdir)), plain(config)
        changed = [line for line in differences(old, new) if not _may_change(line)]
        if _has_grown(old, new, changed):
            check_data(workdir, data, allow_changed=allow_changed_data)
            _extend(workdir, config)
            return
        if changed:
            raise UserError(
                f"workdir {workdir} contains a run with another config: {'; '.join(changed)}. "
                "Use another workdir, or the same config to resume"
            )
        check_data(workdir, data, allow_changed=allow_changed_data)
        return
    if any(files.exists(workdir / name) for name in ("metrics.jsonl", "checkpoints")):
        raise UserError(f"workdir {workdir} contains results but no config.json; use a new folder")
    content = {"config": plain(config), "versions": versions(), "command": command}
    content |= {"data": dict(data)}
    try:
        write_json(path, content)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written ({error.strerror})") from error


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored config with the keys that a newer kdjax has; as it is if it does not fit."""
    try:
        return plain(from_dict(config))
    except UserError:
        return config


def _may_change(line: str) -> bool:
    """Return whether a line of `differences` is of a key that may differ."""
    return line.partition(": ")[0] in MAY_CHANGE or _TITLE.match(line) is not None


def _has_grown(old: Mapping[str, Any], new: Mapping[str, Any], changed: Sequence[str]) -> bool:
    a, b = old.get("num_steps", 0), new["num_steps"]
    return b > a and list(changed) == differences({"num_steps": a}, {"num_steps": b})


def _extend(workdir: Path, config: Config) -> None:
    """Let a finished run go on to more steps: results of fewer steps count no longer.

    The metrics so far stay in metrics.jsonl, test metrics included.
    """
    content, metrics = _read(workdir), workdir / "metrics.jsonl"
    done = [read_json(path) for path in files.matching(workdir, "checkpoints/*/*/done.json")]
    old, where = content["config"]["num_steps"], f"workdir {workdir}: num_steps"
    if not files.exists(workdir / "report.json") or not all(result.get("steps") for result in done):
        raise UserError(
            f"{where} is {config.num_steps}, but its run of {old} steps is not finished; finish "
            "it by the old command first"
        )
    if '"from_variant": "' in json.dumps(plain(config)):
        raise UserError(
            f"{where} cannot grow, because a variant starts from another one (from_variant), whose "
            "weights would change; name a new workdir"
        )
    for role, table in config.roles.items():
        name = table.optimizer.schedule.name
        if table.terms and name in ("cosine", "linear"):
            warnings.warn(
                f"roles.{role}.optimizer.schedule is {name} over {config.num_steps} steps now: the "
                f"learning rate, which ended at 0, rises again at step {old}",
                stacklevel=2,
            )
    files.remove(workdir / "report.json")
    extended = {"num_steps": old, "offset": files.size_of(metrics)}
    write_json(workdir / "config.json", {**content, "config": plain(config), "extended": extended})


def extension_offset(workdir: Path) -> int:
    """Return the bytes of metrics.jsonl that an extended run had when it was finished before."""
    return _read(workdir).get("extended", {}).get("offset", 0)


def check_data(workdir: Path, data: Mapping[str, str], *, allow_changed: bool) -> None:
    """Compare a digest of the data with that of a workdir; older workdirs have none.

    Raises:
      UserError: the digests differ, and `allow_changed` is False.
    """
    old = _read(workdir).get("data") or data
    changed = differences(old, data) if isinstance(old, dict) else ["(unreadable)"]
    if not changed:
        return
    problem = f"workdir {workdir} contains a run with other data: {'; '.join(changed)}"
    if not allow_changed:
        raise UserError(
            f"{problem}. Restore the old data, use another workdir, or add --allow-changed-data"
        )
    warnings.warn(problem, stacklevel=2)


def read_config(workdir: Path) -> dict[str, Any]:
    """Read the config of a workdir.

    Raises:
      UserError: no run there, or a damaged file.
    """
    return _read(workdir)["config"]


def _read(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    try:
        content = json.loads(files.read_text(path))
        return {**content, "config": content["config"]}
    except FileNotFoundError:
        raise UserError(f"workdir {workdir} has no config.json; is it a kdjax run?") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
