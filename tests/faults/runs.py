"""A small sweep of two variants in a separate process, and its expected results."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 300  # for one process, on a busy machine
LINES = 4 * (12 + 3 + 1)  # of a variant: 4 members x (60 / 5 train + 60 / 20 validation + test)

TINY = {
    "num_steps": 60,
    "batch_size": 32,
    "log_every": 5,
    "eval_every": 20,
    "checkpoint_every": 10,
    "grad_norm_every": 20,
    "devices": 1,
    "tensorboard": False,
    "data": {"name": "digits"},
    "roles": {
        "teacher": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
        "student": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
    },
    "variants": {
        "alone": {},
        "kd": {
            "roles.teacher": {"terms": {"ce": None}, "from_variant": "alone"},
            "roles.student.terms.balanced_kl": {"toward": "teacher", "temperature": 2.0},
        },
    },
    "sweep": {"roles.*.optimizer.learning_rate": (0.03, 0.1), "seed": (0, 1)},
}


def run(argv, moment="never", *numbers):
    """Run the command in a separate process that dies at a moment; return its output."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
    }
    script = [sys.executable, str(pathlib.Path(__file__).with_name("crashing.py"))]
    return subprocess.run(
        [*script, moment, *map(str, numbers or (1,)), "--", *argv],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment,
        check=False,
    )


def newest(part):
    """Return the folder of the last checkpoint of a part."""
    return max((p for p in part.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(checkpoint):
    """Truncate the arrays of a checkpoint to half."""
    file = largest(checkpoint / "state")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def read_state(folder):
    """Return all arrays of the last checkpoint of a part by path, and its record."""
    step = int(newest(folder).name)
    with ocp.CheckpointManager(folder.resolve()) as manager:
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore()
            ),
        )
    return step, restored["state"], restored["record"]


def results(workdir):
    """Return the results that must not depend on the kill (unlike times and versions)."""
    report = json.loads((workdir / "report.json").read_text())
    for variant in report["variants"]:
        for network in variant["roles"].values():
            network.pop("latency", None)
    return {key: report[key] for key in ("variants", "selection", "config", "complete", "data")}


def assert_same(workdir, other):
    assert (workdir / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for variant in ("alone", "kd"):
        part = pathlib.Path("checkpoints", variant, "0-3")
        (step, state, record), (step_too, state_too, record_too) = (
            read_state(folder / part) for folder in (workdir, other)
        )
        assert step == step_too == 60
        assert min(each.pop("seconds") for each in (record, record_too)) > 0
        assert record == record_too
        left, right = jax.tree.leaves_with_path(state), jax.tree.leaves_with_path(state_too)
        assert [path for path, _ in left] == [path for path, _ in right]
        assert len(left) > 10
        for (path, a), (_, b) in zip(left, right, strict=True):
            plain = [jax.random.key_data(x) if _is_key(x) else np.asarray(x) for x in (a, b)]
            assert np.array_equal(*plain), path
    assert results(workdir) == results(other)


def _is_key(x):
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
