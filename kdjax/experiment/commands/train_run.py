"""`python -m kdjax train`: train in this process (one of several, if so), and write the report."""

from collections.abc import Callable

from kdjax.experiment.build.build import build
from kdjax.experiment.commands.overrides import LoadedConfig
from kdjax.experiment.commands.report_data import make_report
from kdjax.experiment.run import train as training
from kdjax.experiment.run import workdir
from kdjax.report.files import Path
from kdjax.report.results import RunSummary, to_json
from kdjax.train import multihost


def train_run(
    loaded: LoadedConfig,
    folder: Path,
    command: str,
    say: Callable[[str], None],
    *,
    allow_changed_data: bool = False,
) -> RunSummary | None:
    """Train a config in a workdir, or resume, and write report.json and report.html.

    Returns:
      The content of report.json in the first process, which prints and writes; None in others.

    Raises:
      Stopped: a signal stopped the run after its state was saved.
    """
    first = multihost.is_first()
    say = say if first else _say_nothing
    experiment = build(loaded.config)
    source, allow = experiment.source, allow_changed_data
    with workdir.open_run(folder, experiment.config, command, source, allow_changed_data=allow):
        results = training.train(experiment, folder, say)
        report = make_report(
            experiment, results, title=loaded.title, command=command, complete=True
        )

        def write_report() -> None:
            from kdjax.report import html  # importing matplotlib takes a second

            workdir.write_json(folder / "report.json", to_json(report))
            html.write(folder)

        multihost.run_on_first(write_report)
    return report if first else None


def _say_nothing(text: str) -> None:
    pass
