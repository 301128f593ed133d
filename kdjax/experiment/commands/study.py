"""`python -m kdjax study`: compute the figure and the tables of an experiment file.

The `study` key of a file is the name of a computation of `bounds.studies`; its other keys are the
arguments. A file without it is a training config: it is trained in OUT/run, all its networks are
diagnosed, and `bounds.studies.gap_correlation` compares bounds with gaps.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from kdjax.bounds import studies
from kdjax.errors import RunError, UserError, did_you_mean, is_number
from kdjax.experiment.build.build import build
from kdjax.experiment.commands import overrides as flags
from kdjax.experiment.commands.diagnose import DiagnosisOptions, check_samples, diagnose
from kdjax.experiment.run import train as training
from kdjax.experiment.run import workdir
from kdjax.report import files
from kdjax.report import study_figures as drawing
from kdjax.report.files import Path
from kdjax.report.results import to_json
from kdjax.report.table import as_markdown, show

Say = Callable[[str], None]


class StudyOptions(NamedTuple):
    """Options of a study that trains networks.

    `samples`: the number of training and of test examples with which networks are diagnosed.
    `allow_changed_data`: continue although the data have changed.
    """

    samples: int
    allow_changed_data: bool = False


def study(
    file: str,
    overrides: Sequence[str],
    out: Path,
    *,
    options: StudyOptions,
    command: str,
    say: Say,
) -> None:
    """Run a study and write study.json, tables.md and figure.svg into `out`.

    Args:
      file: the experiment, `FILE.py` or `FILE.py:ARG`.
      overrides: "--config.key=value" strings.
      out: a folder, created if missing; existing files with these names are replaced.
      options: options of the training and of the diagnosis.
      command: the command line, for the files.
      say: prints one line.

    Raises:
      UserError: an unknown study, key or value; `out` cannot be written.
      RunError: training fails, or an inequality of the theory does not hold.
    """
    title, config = flags.read_study(file, overrides) or flags.read(file, overrides)
    _check_out(out)
    if "study" in config:
        result = compute(config)
    else:
        result = _track_gaps(config, out / "run", options, command, say)
    content = {
        "experiment": title,
        "command": command,
        "config": config,
        "versions": workdir.versions(),
        **studies.as_json(result),
    }
    study_tables = drawing.study_tables(content)
    parts = [f"# {result.title}", f"Command: `{command}`", *map(as_markdown, study_tables)]
    workdir.write_json(out / "study.json", to_json(content))
    files.write_text(out / "tables.md", "\n\n".join(parts))
    files.write_text(out / "figure.svg", drawing.study_figure(content) + "\n")
    for table in study_tables:
        show(table)
    say(f"study: {out / 'study.json'}, {out / 'tables.md'}, {out / 'figure.svg'}")
    if result.broken:
        raise RunError(f"violated: {'; '.join(result.broken)}: please report this")


def compute(config: Mapping[str, Any]) -> studies.StudyResult:
    """Call the study of a config with the config's other keys.

    Raises:
      UserError: an unknown study, a missing or unknown key, a value of the wrong kind.
    """
    name = config["study"]
    if name not in studies.STUDIES:
        raise UserError(f"config.study is {name!r}; there are {', '.join(studies.STUDIES)}")
    settings, function = studies.STUDIES[name]
    known = inspect.signature(settings).parameters
    values = {key: value for key, value in config.items() if key != "study"}
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known).rstrip() or f"known: {', '.join(known)}"
            raise UserError(f"config: unknown key {key} of the study {name}; {hint}")
    missing = [key for key in known if key not in values]
    if missing:
        raise UserError(f"config: the study {name} needs {', '.join(missing)}")
    for key, value in values.items():
        _check_kind(key, value, known[key].annotation)
    return function(settings(**values))


def _check_kind(key: str, value: Any, kind: Any) -> None:
    """Refuse a number for a list, a fraction for a whole number, and values that are no numbers."""
    inner = get_args(kind)  # of Sequence[int]
    if inner:
        if not isinstance(value, list | tuple) or not value:
            raise UserError(f"config.{key} is {value!r}; it must be a list that is not empty")
        for part in value:
            _check_kind(key, part, inner[0])
    elif not is_number(value) or (kind is int and not isinstance(value, int)):
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"config.{key} is {value!r}; it must be {expected}")


def _track_gaps(
    config: Mapping[str, Any], folder: Path, options: StudyOptions, command: str, say: Say
) -> studies.StudyResult:
    """Train a config, or resume its training, and track the gaps of its students."""
    samples, allow = options
    check_samples(samples)  # before the training
    experiment = build(config)
    role = experiment.config.select.role
    if without := [v.name for v in experiment.variants if role not in v.players]:
        raise UserError(f"select.role is {role!r}, which {', '.join(without)} lacks; name another")
    with workdir.occupy(folder):
        digest = experiment.source.digest
        workdir.adopt(folder, experiment.config, command, digest, allow_changed_data=allow)
        results = training.train(experiment, folder, say)
    chosen = {result.name: result.chosen[role].members for result in results}
    say(f"measuring the layers of every network on {samples} + {samples} examples")
    networks = diagnose(experiment, folder, say, DiagnosisOptions(samples=samples, members="all"))
    records = map(dataclasses.asdict, networks)
    return studies.tracking([*map(studies.network_bounds, records)], chosen, role=role)


def _check_out(out: Path) -> None:
    try:
        files.make_folder(out)
    except PermissionError as error:
        raise UserError(f"--out {out}: cannot be written") from error
    except OSError as error:
        raise UserError(f"--out {out}: cannot be created ({error.strerror})") from error
