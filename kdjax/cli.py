"""The command line: `python -m kdjax COMMAND`; `--help` names the commands."""

import argparse
import errno
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdjax.errors import RunError, UserError
from kdjax.report.results import RunSummary
from kdjax.train import distributed
from kdjax.train.process_settings import configure_process

if TYPE_CHECKING:
    from kdjax.experiment.build.plan import Experiment

# Commands import what they need when they run: `--help` and `report` start without jax.

HELP = """\
Knowledge distillation beyond one KL: train networks beside each other, from a config file.

  python -m kdjax train --config=experiments/digits_compare.py --workdir=runs/digits
  python -m kdjax train --config=experiments/digits_bdkd.py --workdir=runs/x \\
      --config.roles.student.terms.balanced_kl.temperature=4
  python -m kdjax export --workdir=runs/x --role=student --out=student
  python -m kdjax import --model=resnet56 --weights=resnet56.th --out=teacher
  python -m kdjax bounds --workdir=runs/x
  python -m kdjax study --config=experiments/bounds_gaussian.py --out=runs/bounds_gaussian
  python -m kdjax report runs/* --out=report.html
  python -m kdjax list [config | losses]

The same train command resumes a run that was stopped. Exit status: 0 done, 2 a mistake in the
config, a flag or a file (one line says which), 1 a run that failed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in ("train", "study"):
        parser.error(f"unknown argument {rest[0]}")
    try:
        configure_process()
        return args.run(args, rest, "python -m kdjax " + shlex.join(argv))
    except UserError as error:
        _say(f"kdjax: {error}")
        return 2
    except RunError as error:
        _say(f"kdjax: {error}")
        return 1
    except OSError as error:  # a full disk may show in any file
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = error.filename or "a file"
        _say(f"kdjax: {where} cannot be written ({error.strerror}); make room and try again")
        return 1


def _parser() -> ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(
        prog="python -m kdjax", description=HELP, formatter_class=form, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    train = add("train", _train, "train from a config, or resume; prints and writes a report")
    train.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    train.add_argument("--workdir", required=True, type=Path, help="where everything is written")
    _add_distributed(train)
    train.epilog = "Any --config.key=value overrides the experiment; `list` names the keys."
    evaluate = add("eval", _eval, "score a trained workdir again, from its checkpoints")
    evaluate.add_argument("--workdir", required=True, type=Path)
    export = add("export", _export, "write a trained network as model.safetensors + config.json")
    export.add_argument("--workdir", required=True, type=Path)
    export.add_argument("--role", required=True, help="teacher, student, ...")
    export.add_argument("--out", required=True, type=Path, help="a new folder")
    export.add_argument("--variant", help="which variant (default: the only one)")
    export.add_argument("--member", type=int, help="default: the chosen one of the first seed")
    export.add_argument(
        "--format",
        choices=("kdjax", "torch", "huggingface"),
        default="kdjax",
        help="torch: also torch.safetensors with PyTorch's names; huggingface: instead, "
        "config.json and model.safetensors of a BERT, T5 or GPT-Neo in its names",
    )
    weights = add("import", _import, "write PyTorch's weights as a checkpoint that a role can take")
    weights.add_argument("--model", required=True, help="one of `list`, as resnet56")
    weights.add_argument("--weights", required=True, metavar="FILE", help=".npz .safetensors .pth")
    weights.add_argument("--out", required=True, type=Path, help="a new folder")
    weights.add_argument("--shape", default="32,32,3", help="height,width,channels of its images")
    weights.add_argument("--mean", help="by channel, as .485,.456,.406; the images' normalisation")
    weights.add_argument("--std", help="by channel; given with --mean")
    weights.add_argument("--scale", default="255", help="what images are divided by first")
    _add_bounds(add)
    report = add("report", _report, "one page (.html) or its tables (.md) for several workdirs")
    report.add_argument("workdirs", nargs="+", type=Path)
    report.add_argument("--out", type=Path, default=Path("report.html"))
    names = add("list", _list, "models, losses, data sets, optimizers, experiments and config keys")
    names.add_argument("topic", nargs="?", choices=("config", "losses"), help="keys in full")
    return parser


def _add_distributed(train: ArgumentParser) -> None:
    train.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes that train together (TPU slice, GKE, Slurm, Open MPI: they "
        "find each other; elsewhere the next three flags are needed)",
    )
    train.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    train.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    train.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0")


def _add_bounds(add: Callable[[str, Any, str], ArgumentParser]) -> None:
    diagnose = add("bounds", _bounds, "generalization bounds by layer of a finished run's networks")
    diagnose.add_argument("--workdir", required=True, type=Path)
    diagnose.add_argument("--layers", default="", help="by name, commas between (default: all)")
    diagnose.add_argument("--samples", type=int, default=500, help="training and test examples")
    diagnose.add_argument("--members", choices=("chosen", "all"), default="chosen")
    diagnose.add_argument("--out", type=Path, help="a folder (default: workdir and its report)")
    study = add("study", _study, "a figure with its numbers: bounds beside what they bound")
    study.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    study.add_argument("--out", required=True, type=Path, help="a folder")
    study.add_argument(
        "--samples", type=int, default=250, help="of a diagnosis of trained networks"
    )


def _train(args: Namespace, overrides: Sequence[str], command: str) -> int:
    address = (args.coordinator, args.num_processes, args.process_id)
    with distributed.processes_of(args.distributed, *address):
        # after the processes have found each other: these imports may start jax
        from kdjax.experiment.commands import overrides as flags
        from kdjax.experiment.commands.train_run import train_run

        loaded = flags.read(args.config, overrides)
        report = train_run(loaded, args.workdir, command, _say)
        if report is not None:
            _show(report)
            _say(f"report: {args.workdir / 'report.html'}")
    return 0


def _read_run(workdir: Path) -> "Experiment":
    """Build the experiment of a workdir."""
    from kdjax.experiment.build.build import build
    from kdjax.experiment.run.workdir import read_config

    return build(read_config(workdir))


def _eval(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.report_data import make_report
    from kdjax.experiment.run.train import evaluate

    experiment = _read_run(args.workdir)
    results = evaluate(experiment, args.workdir, _say)
    if not results:
        raise UserError(f"workdir {args.workdir} holds no finished variant; train first")
    complete = len(results) == len(experiment.variants)
    title = str(args.workdir)
    _show(make_report(experiment, results, title=title, command=command, complete=complete))
    return 0


def _export(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.run import export_run
    from kdjax.experiment.run.results import load_results
    from kdjax.models.io import import_torch

    experiment = _read_run(args.workdir)
    huggingface = args.format == "huggingface"
    request = export_run.ExportRequest(args.role, args.variant, args.member, huggingface)
    network = export_run.from_workdir(
        experiment, load_results(experiment, args.workdir, _say), request, args.out
    )
    _say(f"{network} -> {args.out}")
    if args.format == "torch":
        _say(f"PyTorch's names -> {import_torch.write_torch(args.out)}")
    return 0


def _import(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.models.io import import_torch

    images = import_torch.ImageFormat(
        shape=[int(x) for x in _numbers("--shape", args.shape) or ()],
        mean=_numbers("--mean", args.mean),
        std=_numbers("--std", args.std),
        scale=(_numbers("--scale", args.scale) or [0.0])[0],
    )
    summary = import_torch.import_weights(args.model, args.weights, args.out, images)
    _say(f"{args.model} -> {args.out}: {summary}")
    return 0


def _numbers(flag: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(x) for x in text.split(",")]
    except ValueError:
        raise UserError(f"{flag}={text}: use numbers with commas between them") from None


def _bounds(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.diagnose import DiagnosisOptions, diagnose
    from kdjax.report import bounds_tables, html
    from kdjax.report.results import BoundsSummary
    from kdjax.report.table import show

    layers = [name for name in args.layers.split(",") if name]
    options = DiagnosisOptions(layers=layers, samples=args.samples, members=args.members)
    networks = tuple(diagnose(_read_run(args.workdir), args.workdir, _say, options))
    out = args.out or args.workdir
    files = bounds_tables.write_bounds(out, BoundsSummary(command=command, networks=networks))
    if args.out is None and (out / "report.json").exists():
        files += [html.write(out)]
    show(bounds_tables.bounds_table(networks))
    _say(f"bounds: {', '.join(map(str, files))}")
    violated = [f"{n.variant} {n.role}" for n in networks if not n.held]
    if violated:
        raise RunError(
            f"the loss gap of {', '.join(violated)} exceeds its bound: please report this"
        )
    return 0


def _study(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.study import study

    study(args.config, overrides, args.out, samples=args.samples, command=command, say=_say)
    return 0


def _report(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.report import html, markdown

    combine = markdown.combine if args.out.suffix == ".md" else html.combine
    _say(f"report: {combine(args.workdirs, args.out)}")
    return 0


def _list(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands import catalog

    topics = {"config": catalog.config_keys, "losses": catalog.loss_names}
    text = topics[args.topic]() if args.topic else catalog.vocabulary(Path("experiments"))
    sys.stdout.write(text + "\n")
    return 0


def _show(report: RunSummary) -> None:
    from kdjax.report import tables
    from kdjax.report.table import show

    for table in tables.everything(report):
        show(table)
    paired = tables.differences(report)
    if paired is not None:
        show(paired)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
