"""The division of a variant's members into programs, and the folder of each program."""

from pathlib import Path
from typing import NamedTuple

import jax

from kdjax.data import example_batch
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import workdir
from kdjax.train import memory_estimate, multihost
from kdjax.train.step import init_state


class MemberGroup(NamedTuple):
    """Members of a variant that one program trains together."""

    variant: Variant
    members: tuple[int, ...]
    folder: Path = Path()


def member_groups(experiment: Experiment, variant: Variant, folder: Path) -> list[MemberGroup]:
    """Divide a variant's members into programs, each with as many members as fit into memory.

    The division is written to a file, so that a resumed run uses the same one.
    """
    count, home = len(variant.members), folder / "checkpoints" / variant.name
    plan, size = home / "plan.json", 0
    if multihost.is_first():
        if has_started(variant, folder):
            size = workdir.read_json(plan)["members_per_program"]
        else:
            size = experiment.config.members_per_program or _fitting(experiment, variant)
            home.mkdir(parents=True, exist_ok=True)
            workdir.write_json(plan, {"members_per_program": size})
    size = int(multihost.broadcast_text(str(size)))
    return [
        MemberGroup(variant, tuple(range(first, min(first + size, count))), home)
        for first in range(0, count, size)
    ]


def has_started(variant: Variant, folder: Path) -> bool:
    """Return whether the members of a variant have been divided, so may have been trained."""
    return (folder / "checkpoints" / variant.name / "plan.json").exists()


def checkpoint_dir(group: MemberGroup) -> Path:
    """Return the folder of a group's checkpoints."""
    return group.folder / f"{group.members[0]}-{group.members[-1]}"


def _fitting(experiment: Experiment, variant: Variant) -> int:
    """Return the number of members that fit on a device, times the devices that they may use."""
    count = len(variant.members)
    if count == 1:
        return 1
    shapes = example_batch(experiment.source, experiment.config.batch_size)
    batch = jax.eval_shape(experiment.prepare_eval, shapes)
    method, key = variant.method(None), jax.random.key(0)
    state = jax.eval_shape(
        lambda k, b: init_state(method, variant.optimizers, k, b, variant.hparams[0]), key, batch
    )
    member_bytes = memory_estimate.member_bytes(method, state, batch)
    free_bytes = memory_estimate.free_bytes(jax.local_devices()[0])
    return memory_estimate.fitting(count, member_bytes, free_bytes)
