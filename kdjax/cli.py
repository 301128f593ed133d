"""The command line: `python -m kdjax COMMAND`; `--help` names the commands."""

import argparse
import errno
import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdjax import __version__
from kdjax.errors import RunError, UserError
from kdjax.train import distributed
from kdjax.train.process_settings import configure_process, missing_platforms

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
  python -m kdjax list [config | losses | NAME]

The same train command resumes a run that was stopped. Exit status: 0 done, 2 a mistake in the
config, a flag or a file (one line says which), 1 a run that failed, 75 a run that a signal stopped
and that is saved, 130 interrupted before there was anything to save.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    if argv is None:
        signal.signal(signal.SIGINT, _exit_at_once)  # the training loop has a handler of its own
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in ("train", "study"):
        parser.error(f"unknown argument {rest[0]}")
    try:
        configure_process()
        status = args.run(args, rest, "python -m kdjax " + shlex.join(argv))
        sys.stdout.flush()
        return status
    except UserError as error:
        _say(f"kdjax: {error}")
        return 2
    except RunError as error:
        _say(f"kdjax: {error}")
        return error.exit_status
    except (RuntimeError, AssertionError):
        missing = missing_platforms()
        if missing is None:
            raise
        _say(f"kdjax: JAX_PLATFORMS={missing}: this machine has no such device; unset it")
        return 2
    except BrokenPipeError:  # the reader of the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk may show in any file
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = error.filename or "a file"
        _say(f"kdjax: {where} cannot be written ({error.strerror}); make room and try again")
        return 1


def _exit_at_once(number: int, frame: object) -> None:
    """End on Ctrl-C; an exception would surface in the middle of an import as any other error."""
    os.write(2, b"kdjax: interrupted\n")
    os._exit(128 + number)


CHANGED_DATA = "continue although the data have changed since the run began"


def _parser() -> ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(
        prog="python -m kdjax", description=HELP, formatter_class=form, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"kdjax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    train = add("train", _train, "train from a config, or resume; prints and writes a report")
    train.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    _add_workdir(train)
    _add_distributed(train)
    train.epilog = "Any --config.key=value overrides the experiment; `list` names the keys."
    evaluate = add("eval", _eval, "score a trained workdir again, from its checkpoints")
    _add_workdir(evaluate)
    export = add("export", _export, "write a trained network as model.safetensors + config.json")
    _add_workdir(export)
    export.add_argument("--role", required=True, help="teacher, student, ...")
    export.add_argument("--out", required=True, type=_path, help="a new folder")
    export.add_argument("--variant", help="which variant (default: the only one)")
    export.add_argument("--member", type=int, help="default: the chosen one of the first seed")
    export.add_argument(
        "--format",
        choices=("kdjax", "torch", "huggingface"),
        default="kdjax",
        help="torch: also torch.safetensors with PyTorch's names; huggingface: instead, "
        "config.json and model.safetensors of a transformer in its names",
    )
    weights = add("import", _import, "convert PyTorch weights to a checkpoint for a role")
    weights.add_argument("--model", required=True, help="a network of `list`, such as resnet56")
    weights.add_argument("--weights", required=True, type=_path, help=".pth, .safetensors, .npz")
    weights.add_argument("--key", help="the state dict to read if there are several, or its prefix")
    weights.add_argument("--out", required=True, type=_path, help="a new folder")
    weights.add_argument("--shape", default="32,32,3", help="height,width,channels of its images")
    weights.add_argument("--mean", help="normalisation of its images, such as .485,.456,.406")
    weights.add_argument("--std", help="normalisation of its images, with --mean")
    weights.add_argument("--scale", default="255", help="divisor of its images (default 255)")
    weights.add_argument("--classes", help="names in the order of the outputs, such as cat,dog")
    _add_bounds(add)
    report = add("report", _report, "one page (.html) or its tables (.md) for several workdirs")
    report.add_argument("workdirs", nargs="+", type=_path)
    report.add_argument("--out", type=_path, default=Path("report.html"))
    _add_list(add)
    return parser


def _add_workdir(command: ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, type=_path, help="the folder of the run")
    command.add_argument("--allow-changed-data", action="store_true", help=CHANGED_DATA)


def _add_list(add: Callable[[str, Any, str], ArgumentParser]) -> None:
    names = add("list", _list, "models, losses, data sets, optimizers, experiments and config keys")
    text = "all config keys, all losses, or the options of forward_kl, resnet20, ..."
    names.add_argument("topic", nargs="?", metavar="config | losses | NAME", help=text)


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
    _add_workdir(diagnose)
    diagnose.add_argument("--layers", default="", help="by name, commas between (default: all)")
    diagnose.add_argument("--samples", type=int, default=500, help="training and test examples")
    diagnose.add_argument("--members", choices=("chosen", "all"), default="chosen")
    diagnose.add_argument("--out", type=_path, help="a folder (default: workdir and its report)")
    study = add("study", _study, "the figure and tables of a study: bounds and what they bound")
    study.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    study.add_argument("--out", required=True, type=_path, help="a folder")
    study.add_argument("--samples", type=int, default=250, help="training and test examples")
    study.add_argument("--allow-changed-data", action="store_true", help=CHANGED_DATA)


def _path(text: str) -> Path:
    """Read a path of the command line, where ~ is the home folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a path")
    return Path(os.path.expanduser(text))


def _train(args: Namespace, overrides: Sequence[str], command: str) -> int:
    address = (args.coordinator, args.num_processes, args.process_id)
    with distributed.processes_of(args.distributed, *address):
        # after the processes have found each other: these imports may start jax
        from kdjax.experiment.commands import overrides as flags
        from kdjax.experiment.commands.train_run import train_run
        from kdjax.report.tables import show_tables

        loaded = flags.read(args.config, overrides)
        allow = args.allow_changed_data
        report = train_run(loaded, args.workdir, command, _say, allow_changed_data=allow)
        if report is not None:
            show_tables(report)
            _say(f"report: {args.workdir / 'report.html'}")
    return 0


def _read_run(args: Namespace) -> "Experiment":
    """Build the experiment of a workdir, whose data must be those that it was trained on."""
    from kdjax.experiment.build.build import build
    from kdjax.experiment.run.workdir import check_data, read_config

    experiment = build(read_config(args.workdir))
    digest = experiment.source.digest
    check_data(args.workdir, digest, allow_changed=args.allow_changed_data)
    return experiment


def _eval(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.report_data import make_report
    from kdjax.experiment.run.train import evaluate
    from kdjax.report.tables import show_tables

    experiment = _read_run(args)
    results = evaluate(experiment, args.workdir, _say)
    if not results:
        raise UserError(f"workdir {args.workdir} holds no finished variant; train first")
    complete = len(results) == len(experiment.variants)
    title = str(args.workdir)
    show_tables(make_report(experiment, results, title=title, command=command, complete=complete))
    return 0


def _export(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.run import export_run
    from kdjax.experiment.run.results import load_results

    experiment = _read_run(args)
    request = export_run.ExportRequest(args.role, args.variant, args.member, args.format)
    network = export_run.from_workdir(
        experiment, load_results(experiment, args.workdir, _say), request, args.out
    )
    _say(f"{network} -> {args.out}")
    if args.format == "torch":
        _say(f"PyTorch's names -> {args.out / 'torch.safetensors'}")
    return 0


def _import(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.weights import import_weights

    images = {name: getattr(args, name) for name in ("shape", "mean", "std", "scale", "classes")}
    import_weights(args.model, args.weights, args.out, _say, key=args.key, **images)
    return 0


def _bounds(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.diagnose import DiagnosisOptions, write_bounds

    layers = [name for name in args.layers.split(",") if name]
    options = DiagnosisOptions(layers=layers, samples=args.samples, members=args.members)
    write_bounds(_read_run(args), args.workdir, args.out, options, command, _say)
    return 0


def _study(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.study import StudyOptions, study

    options = StudyOptions(args.samples, args.allow_changed_data)
    study(args.config, overrides, args.out, options=options, command=command, say=_say)
    return 0


def _report(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.report import html, markdown
    from kdjax.report.records import finished_runs

    finished, others = finished_runs(args.workdirs)
    for line in others:
        _say(f"left out: {line}")
    combine = markdown.combine if args.out.suffix == ".md" else html.combine
    _say(f"report: {combine(finished, args.out)}")
    return 0


def _list(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands import catalog, catalog_entry

    if args.topic == "config":
        text = catalog.config_keys()
    elif args.topic == "losses":
        text = catalog.loss_names()
    elif args.topic:
        text = catalog_entry.describe(args.topic)
    else:
        text = catalog.vocabulary(Path("experiments"))
    sys.stdout.write(text + "\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
