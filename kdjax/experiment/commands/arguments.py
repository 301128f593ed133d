"""The arguments of the command line: commands, their flags and their help."""

import argparse
from argparse import ArgumentParser
from collections.abc import Callable

from kdjax.report.files import Path, as_path, is_remote

_WORKDIR = "the folder of the run, or gs://bucket/path"
CHANGED_DATA = "continue although the data have changed since the run began"
BEST = "the weights of the best validation, of a run with keep_best, instead of the last ones"

Add = Callable[[str, str], ArgumentParser]  # of a command, by name and help

HELP = """\
Knowledge distillation beyond one KL: train networks beside each other, from a config file.

  python -m kdjax train --config=experiments/digits_compare.py --workdir=runs/digits
  python -m kdjax train --config=experiments/digits_bdkd.py --workdir=runs/x \\
      --config.roles.student.terms.balanced_kl.temperature=4
  python -m kdjax export --workdir=runs/x --role=student --out=student
  python -m kdjax predict --model=student --input=photos --out=predictions.csv
  python -m kdjax generate --model=student --prompt="def main():"
  python -m kdjax import --model=resnet56 --weights=resnet56.th --out=teacher
  python -m kdjax bounds --workdir=runs/x
  python -m kdjax study --config=experiments/bounds_gaussian.py --out=runs/bounds_gaussian
  python -m kdjax report runs/* --out=report.html
  python -m kdjax list [config | losses | NAME]

The same train command resumes a run that was stopped. Exit status: 0 done, 2 a mistake in the
config, a flag or a file (one line says which), 1 a run that failed, 75 a run that a signal stopped
and that is saved, 130 interrupted before there was anything to save.
"""


def make_parser(version: str) -> ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(
        prog="python -m kdjax", description=HELP, formatter_class=form, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    train = add("train", "train from a config, or resume; prints and writes a report")
    train.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    _add_workdir(train)
    train.add_argument("--variants", metavar="A,B", help="train these variants alone")
    _add_distributed(train)
    train.epilog = "Any --config.key=value overrides the experiment; `list` names the keys."
    evaluate = add("eval", "score a trained workdir again, from its checkpoints")
    _add_workdir(evaluate)
    evaluate.add_argument(
        "--corruptions", action="store_true", help="also score the test images with corruptions"
    )
    evaluate.add_argument("--best", action="store_true", help=BEST)
    evaluate.epilog = (
        "--config.data.path=OTHER, or any key of data, takes the test splits of other data."
    )
    _add_export(add)
    _add_predict(add)
    _add_generate(add)
    _add_import(add)
    _add_bounds(add)
    report = add("report", "one page (.html) or its tables (.md) for several workdirs")
    report.add_argument("workdirs", nargs="+", type=_path)
    report.add_argument("--out", type=_path, default=as_path("report.html"))
    _add_list(add)
    return parser


def _add_export(add: Add) -> None:
    export = add("export", "write a trained network as model.safetensors + config.json")
    _add_workdir(export)
    export.add_argument("--role", required=True, help="teacher, student, ...")
    export.add_argument("--out", required=True, type=_path, help="a new folder")
    _add_member(export)
    export.add_argument(
        "--format",
        choices=("kdjax", "torch", "stablehlo", "huggingface"),
        default="kdjax",
        help="torch: also torch.safetensors with PyTorch's names; stablehlo: also model.stablehlo, "
        "which JAX runs without kdjax; huggingface: instead, "
        "config.json and model.safetensors of a transformer in its names",
    )


def _add_member(command: ArgumentParser) -> None:
    command.add_argument("--variant", help="which variant (default: the only one)")
    command.add_argument("--member", type=int, help="default: the chosen one of the first seed")
    command.add_argument("--best", action="store_true", help=BEST)


def _add_generate(add: Add) -> None:
    generate = add("generate", "continue prompts by a language model, of a run or exported")
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=_path, metavar="DIR", help="an export, or a folder of Hugging Face"
    )
    source.add_argument("--workdir", type=_path, help=_WORKDIR)
    generate.add_argument("--allow-changed-data", action="store_true", help=CHANGED_DATA)
    generate.add_argument("--role", default="student", help="of --workdir (default: student)")
    _add_member(generate)
    generate.add_argument(
        "--prompt", required=True, nargs="+", metavar="TEXT", help='texts to continue, or ""'
    )
    generate.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    generate.add_argument("--temperature", type=float, default=1.0, help="0: the likeliest tokens")
    generate.add_argument("--top-p", type=float, default=1.0, help="mass of the tokens drawn from")
    generate.add_argument("--seed", type=int, default=0)


def _add_predict(add: Add) -> None:
    predict = add("predict", "write the predictions of an exported network for raw files")
    predict.add_argument("--model", required=True, type=_path, metavar="DIR", help="an export")
    predict.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=_local_path,
        metavar="FILE",
        help="pictures or folders of them, .npy, .npz; of texts .txt, .csv, .tsv, .jsonl",
    )
    predict.add_argument(
        "--out", required=True, type=_local_path, metavar="FILE.csv", help="the table"
    )


def _add_import(add: Add) -> None:
    weights = add("import", "convert PyTorch weights to a checkpoint for a role")
    weights.add_argument("--model", required=True, help="a network of `list`, such as resnet56")
    weights.add_argument(
        "--weights", required=True, type=_local_path, help=".pth, .safetensors, .npz"
    )
    weights.add_argument("--key", help="the state dict to read if there are several, or its prefix")
    weights.add_argument("--out", required=True, type=_local_path, help="a new folder")
    weights.add_argument("--shape", default="32,32,3", help="height,width,channels of its images")
    weights.add_argument("--mean", help="normalisation of its images, such as .485,.456,.406")
    weights.add_argument("--std", help="normalisation of its images, with --mean")
    weights.add_argument("--scale", default="255", help="divisor of its images (default 255)")
    weights.add_argument("--classes", help="names in the order of the outputs, such as cat,dog")


def _add_workdir(command: ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, type=_path, help=_WORKDIR)
    command.add_argument("--allow-changed-data", action="store_true", help=CHANGED_DATA)


def _add_list(add: Add) -> None:
    names = add("list", "models, losses, data sets, optimizers, experiments and config keys")
    names.add_argument(
        "topic",
        nargs="?",
        metavar="config | losses | NAME",
        help="all config keys, all losses, or the options of forward_kl, resnet20, ..., or of a "
        "network or loss of your own, FILE.py:NAME (its code is run)",
    )


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


def _add_bounds(add: Add) -> None:
    diagnose = add("bounds", "generalization bounds by layer of a finished run's networks")
    _add_workdir(diagnose)
    diagnose.add_argument("--layers", default="", help="by name, commas between (default: all)")
    diagnose.add_argument("--samples", type=int, default=500, help="training and test examples")
    diagnose.add_argument("--members", choices=("chosen", "all"), default="chosen")
    diagnose.add_argument("--out", type=_path, help="a folder (default: workdir and its report)")
    study = add("study", "the figure and tables of a study: bounds and what they bound")
    study.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="an experiment")
    study.add_argument("--out", required=True, type=_path, help="a folder")
    study.add_argument("--samples", type=int, default=250, help="training and test examples")
    study.add_argument("--allow-changed-data", action="store_true", help=CHANGED_DATA)


def _path(text: str) -> Path:
    """Read a path of the command line: ~ is the home folder, gs:// a bucket."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a path")
    return as_path(text)


def _local_path(text: str) -> Path:
    """Read a path of the command line that is not in a bucket."""
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"{text} is an address; name a local path")
    return _path(text)
