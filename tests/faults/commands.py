"""Experiments, commands and expected errors shared by the command line tests."""

import copy
from pathlib import Path

from kdjax import cli

BASE = {
    "num_steps": 4,
    "batch_size": 32,
    "log_every": 2,
    "eval_every": 0,
    "checkpoint_every": 2,
    "devices": 1,
    "tensorboard": False,
    "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3},
    "roles": {
        "teacher": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
        "student": {
            "model": {"name": "mlp", "hidden": (6,)},
            "terms": {"ce": {}, "balanced_kl": {"toward": "teacher"}},
        },
    },
}


def base(**changes):
    """Return the smallest BD-KD; `changes` are paths with "__" for "."; None removes a key."""
    config = copy.deepcopy(BASE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = config
        for part in parents:
            table = table.setdefault(part, {})
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
    return config


def experiment(folder: Path, config, name="experiment.py", title="A title."):
    """Write an experiment file for --config."""
    path = folder / name
    text = f'"""{title}"""\n\ninf = float("inf")\n\n\ndef get_config(arg=""):\n'
    text += f"    return {config!r}\n"
    path.write_text(text)
    return path


def train(config: Path, workdir: Path, *flags):
    return ["train", f"--config={config}", f"--workdir={workdir}", *flags]


def snapshot(folder: Path):
    """Return the contents of all files below a folder, or None if there is no such folder."""
    if not folder.exists():
        return None
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return [(p, p.read_bytes()) for p in files]


def refused(capsys, argv, *words, status=2, keep: Path | None = None):
    """Run a command that must fail with one line; return it. No file below `keep` may change."""
    before = snapshot(keep) if keep else None
    capsys.readouterr()
    exit_status = cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert exit_status == status, err
    lines = [line for line in err.splitlines() if ": memory of a step: " not in line]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert not out
    missing = [word for word in words if word not in lines[0]]
    assert not missing, (missing, lines[0])
    if keep:
        assert snapshot(keep) == before
    return lines[0]
