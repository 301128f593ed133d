"""How a variant's members are divided into programs, and where each program's files lie."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from kdjax.data import example_batch
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import workdir
from kdjax.train import memory_estimate, multihost
from kdjax.train.step import init_state


class MemberGroup(NamedTuple):
    """Some members of a variant, trained by one program."""

    variant: Variant
    members: tuple[int, ...]
    folder: Path


def parts(run: Experiment, variant: Variant, folder: Path) -> list[MemberGroup]:
    """Divide a variant's members into programs, as many members each as fit into memory.

    The division is written down, because a resumed run must not divide anew.
    """
    count, home = len(variant.members), folder / "checkpoints" / variant.name
    plan, size = home / "plan.json", 0
    if multihost.is_first():
        if has_started(variant, folder):
            size = workdir.read_json(plan)["members_per_program"]
        else:
            size = run.config["members_per_program"] or _fitting(run, variant)
            home.mkdir(parents=True, exist_ok=True)
            workdir.write_json(plan, {"members_per_program": size})
    size = multihost.broadcast_int(size)
    return [
        MemberGroup(variant, tuple(range(a, min(a + size, count))), home)
        for a in range(0, count, size)
    ]


def has_started(variant: Variant, folder: Path) -> bool:
    """Whether the members of a variant have been divided, hence perhaps trained."""
    return (folder / "checkpoints" / variant.name / "plan.json").exists()


def _fitting(run: Experiment, variant: Variant) -> int:
    """How many members of a variant fit on each device, times the devices they may spread over."""
    count, shapes = len(variant.members), example_batch(run.source, run.config["batch_size"])
    if count == 1:
        return 1
    batch = jax.eval_shape(run.prepare_eval, shapes)
    method, key = variant.method(None), jax.random.key(0)
    state = jax.eval_shape(
        lambda k, b: init_state(method, variant.optimizers, k, b, variant.hparams[0]), key, batch
    )
    each = memory_estimate.member_bytes(method, state, batch)
    return memory_estimate.fitting(count, each, memory_estimate.free_bytes(jax.local_devices()[0]))


def checkpoint_dir(part: MemberGroup) -> Path:
    """Where the checkpoints of a part lie."""
    return part.folder / f"{part.members[0]}-{part.members[-1]}"


def finished(part: MemberGroup) -> dict[str, Any] | None:
    """What the members of a finished part came to; None if it is not finished."""
    path = checkpoint_dir(part) / "done.json"
    return workdir.read_json(path) if path.exists() else None
