"""The command line: `python -m kdjax COMMAND`; `--help` names the commands."""

import errno
import os
import shlex
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdjax import __version__
from kdjax.errors import RunError, UserError
from kdjax.experiment.commands import arguments
from kdjax.report import files
from kdjax.train import distributed
from kdjax.train.process_settings import configure_process, missing_platforms

if TYPE_CHECKING:
    from kdjax.experiment.build.plan import Experiment

# Commands import what they need when they run: `--help` and `report` start without jax.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    if argv is None:
        signal.signal(signal.SIGINT, _exit_at_once)  # the training loop has a handler of its own
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    prefix = {"train": "", "study": "", "eval": "--config."}.get(args.command)
    if rest and (prefix is None or not rest[0].startswith(prefix)):
        parser.error(f"unknown argument {rest[0]}")
    try:
        configure_process()
        _check_addresses(args)
        status = _COMMANDS[args.command](args, rest, "python -m kdjax " + shlex.join(argv))
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
        where = error.filename or "a file"
        if files.is_remote(where):
            _say(f"kdjax: {where} cannot be read or written ({error.strerror}); try again")
            return 1
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _say(f"kdjax: {where} cannot be written ({error.strerror}); make room and try again")
        return 1


def _check_addresses(args: Namespace) -> None:
    """Refuse workdirs and folders at addresses that cannot be read."""
    for value in vars(args).values():
        for path in value if isinstance(value, list) else [value]:
            files.check_access(path)


def _exit_at_once(number: int, frame: object) -> None:
    """End on Ctrl-C; an exception would surface in the middle of an import as any other error."""
    os.write(2, b"kdjax: interrupted\n")
    os._exit(128 + number)


def _parser() -> ArgumentParser:
    return arguments.make_parser(f"kdjax {__version__}")


def _train(args: Namespace, overrides: Sequence[str], command: str) -> int:
    address = (args.coordinator, args.num_processes, args.process_id)
    with distributed.processes_of(args.distributed, *address):
        # after the processes have found each other: these imports may start jax
        from kdjax.experiment.commands import overrides as flags
        from kdjax.experiment.commands.train_run import train_run
        from kdjax.report.tables import show_tables

        loaded = flags.read(args.config, overrides)
        if args.variants is not None:
            loaded = flags.choose_variants(loaded, args.variants.split(","))
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
    from kdjax.experiment.build.build import with_test_data
    from kdjax.experiment.build.corrupted import with_corruptions
    from kdjax.experiment.commands.overrides import replace_data
    from kdjax.experiment.commands.report_data import make_report
    from kdjax.experiment.run.train import evaluate
    from kdjax.experiment.run.workdir import read_config
    from kdjax.report.tables import show_tables

    other = replace_data(read_config(args.workdir), overrides) if overrides else None
    experiment = _read_run(args)
    if other is not None:
        experiment = with_test_data(experiment, other, args.workdir)
        size = experiment.source.size
        sizes = ", ".join(f"{size[split]:,} of {split}" for split in size if "test" in split)
        _say(f"examples of --config.data: {sizes}; choices are by the run's own data")
    if args.corruptions:
        experiment = with_corruptions(experiment)
    results = evaluate(experiment, args.workdir, _say, best=args.best)
    if not results:
        raise UserError(f"workdir {args.workdir} holds no variant with a checkpoint; train first")
    complete = len(results) == len(experiment.variants)
    title = str(args.workdir)
    show_tables(make_report(experiment, results, title=title, command=command, complete=complete))
    return 0


def _export(args: Namespace, overrides: Sequence[str], command: str) -> int:
    network = _write_export(args, args.format, args.out)
    _say(f"{network} -> {args.out}")
    if args.format == "torch":
        _say(f"PyTorch's names -> {args.out / 'torch.safetensors'}")
    if args.format == "stablehlo":
        _say(f"StableHLO -> {args.out / 'model.stablehlo'}")
    return 0


def _write_export(args: Namespace, form: str, out: Path) -> str:
    """Export a network of a run, and return its name for a message."""
    from kdjax.experiment.run import export_run
    from kdjax.experiment.run.results import load_results
    from kdjax.experiment.run.train import score_finished, score_unfinished

    experiment = _read_run(args)
    request = export_run.ExportRequest(args.role, args.variant, args.member, form, best=args.best)
    results = load_results(experiment, args.workdir, _say)
    for variant in experiment.variants:
        if args.variant not in (None, variant.name):
            continue
        if variant.name not in results.outcomes:
            score_unfinished(results, variant, best=args.best)
        elif args.best:  # the choice of the member and the temperature are those of these weights
            score_finished(results, variant, best=True)
    return export_run.from_workdir(experiment, results, request, out)


def _generate(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.generate import generate
    from kdjax.models import Sampling

    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if model is None:
            model = Path(folder, "export")
            _say(_write_export(args, "kdjax", model))
        completions = generate(model, args.prompt, sampling, args.seed)
    texts = [prompt + text for prompt, text in zip(args.prompt, completions, strict=True)]
    sys.stdout.write("\n\n".join(texts) + "\n")
    return 0


def _predict(args: Namespace, overrides: Sequence[str], command: str) -> int:
    from kdjax.experiment.commands.predict import predict
    from kdjax.report import staging

    predict(files.LocalPath(staging.local_copy(str(args.model))), args.input, args.out, _say)
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


_COMMANDS = {
    "train": _train,
    "eval": _eval,
    "export": _export,
    "predict": _predict,
    "generate": _generate,
    "import": _import,
    "bounds": _bounds,
    "study": _study,
    "report": _report,
    "list": _list,
}
