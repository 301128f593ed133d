"""The division of a variant's members into programs, and the folder of each program."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from kdjax.data import example_batch
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import workdir
from kdjax.report import files
from kdjax.report.files import Path
from kdjax.train import memory_estimate, multihost
from kdjax.train.step import init_state


class MemberGroup(NamedTuple):
    """Members of a variant that one program trains together.

    `stop`: the last step of a round of successive halving; None: of the variant.
    """

    variant: Variant
    members: tuple[int, ...]
    folder: Path = files.as_path(".")
    stop: int | None = None

    @property
    def last_step(self) -> int:
        """The last step of the round, or of the variant."""
        return self.stop or self.variant.config.num_steps


def round_stops(variant: Variant) -> tuple[int | None, ...]:
    """Return the last step of each round; without successive halving there is one round.

    Members that differ by their seeds only have nothing to lose against.
    """
    points = {
        tuple((path, value) for path, value in member.items() if path != "seed")
        for member in variant.members
    }
    return (*(variant.config.halving.steps if len(points) > 1 else ()), None)


def member_groups(
    experiment: Experiment,
    variant: Variant,
    folder: Path,
    round_number: int = 0,
    members: Sequence[int] | None = None,
) -> list[MemberGroup]:
    """Divide the members of a round into programs, each with as many as fit into memory.

    The division is written to a file, so that a resumed run uses the same one. Another
    `members_per_program` divides them anew as long as there is no checkpoint.

    Args:
      experiment: the run.
      variant: one of its variants.
      folder: the workdir.
      round_number: the round of successive halving.
      members: those of the round; None: all.
    """
    members = range(len(variant.members)) if members is None else members
    plan, size = _plan_file(variant, folder, round_number), 0
    if multihost.is_first():
        limit = experiment.config.members_per_program
        if files.exists(plan):
            size = workdir.read_json(plan)["members_per_program"]
        if not size or (limit not in (0, size) and not _has_checkpoints(plan.parent)):
            size = limit or _fitting(experiment, variant, len(members))
            later = {"members": list(members)} if round_number else {}
            workdir.write_json(plan, {"members_per_program": size, **later})
    size = int(multihost.broadcast_text(str(size)))
    stop = round_stops(variant)[round_number]
    return [
        MemberGroup(variant, tuple(members[first : first + size]), plan.parent, stop)
        for first in range(0, len(members), size)
    ]


def all_groups(experiment: Experiment, variant: Variant, folder: Path) -> list[MemberGroup]:
    """Return the groups of all rounds that have started, in order."""
    groups = member_groups(experiment, variant, folder)
    for number in range(1, len(round_stops(variant))):
        if not has_started(variant, folder, number):
            break
        members = workdir.read_json(_plan_file(variant, folder, number))["members"]
        groups += member_groups(experiment, variant, folder, number, members)
    return groups


def has_started(variant: Variant, folder: Path, round_number: int = 0) -> bool:
    """Return whether the members of a round have been divided, so may have been trained."""
    return files.exists(_plan_file(variant, folder, round_number))


def _plan_file(variant: Variant, folder: Path, round_number: int) -> Path:
    home = folder / "checkpoints" / variant.name
    return (home / f"round-{round_number}" if round_number else home) / "plan.json"


def _has_checkpoints(folder: Path) -> bool:
    """Return whether a group below the folder of a plan has a checkpoint or results."""
    return any(files.matching(folder, f"*-*/{name}") for name in ("[0-9]*", "done.json"))


def checkpoint_dir(group: MemberGroup, *, best: bool = False) -> Path:
    """Return the folder of a group's checkpoints, or of the states at its best validations."""
    folder = group.folder / f"{group.members[0]}-{group.members[-1]}"
    return folder / "best" if best else folder


def _fitting(experiment: Experiment, variant: Variant, count: int) -> int:
    """Return the number of members that fit on a device, times the devices that divide them."""
    if count == 1:
        return 1
    config = experiment.config
    devices = config.devices or jax.device_count()
    divided = devices if config.members_over_devices and count % devices == 0 else 1
    shapes = example_batch(experiment.source, config.batch_size)
    batch = jax.eval_shape(experiment.prepare_eval, shapes)
    method, key = variant.method(None), jax.random.key(0)
    state = jax.eval_shape(
        lambda k, b: init_state(method, variant.optimizers, k, b, variant.hparams[0]), key, batch
    )
    # all members are initialised on one device
    initial_bytes = divided * memory_estimate.tree_bytes(state)
    step_bytes = memory_estimate.member_bytes(method, state, batch)
    free_bytes = memory_estimate.free_bytes(jax.local_devices()[0])
    if config.members_in_turn:  # the state of each member twice, the rest once for all
        own_bytes = 2 * memory_estimate.tree_bytes(state)
        free_bytes, step_bytes = free_bytes - (step_bytes - own_bytes), own_bytes
    member_bytes = max(step_bytes, initial_bytes)
    return divided * memory_estimate.fitting(count // divided, member_bytes, free_bytes)
