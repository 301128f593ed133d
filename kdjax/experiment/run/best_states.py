"""The state of each member at its best validation so far (`keep_best`), beside the last states.

workdir/checkpoints/<variant>/<first>-<last>/best/<step>/     one orbax checkpoint; its rows may be
                                                              of different steps; a later number
                                                              where a resumed run repeats steps
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from kdjax.errors import UserError
from kdjax.evaluation.selection import deciding_role
from kdjax.experiment.build.plan import Experiment
from kdjax.experiment.run.member_groups import MemberGroup, checkpoint_dir
from kdjax.experiment.run.program import Program
from kdjax.train import checkpoint
from kdjax.types import State


class BestStates:
    """Tracks the best validation score of each member and writes the states that had them."""

    def __init__(self, experiment: Experiment, group: MemberGroup, program: Program) -> None:
        """Start without scores, for the metric of selection."""
        selection = experiment.selection
        role = deciding_role(group.variant.players, selection.role)
        self.names = (f"{role}/{selection.metric}", selection.metric)
        self.sign = 1.0 if selection.higher_is_better else -1.0
        self.program = program
        self.manager = checkpoint.open_manager(checkpoint_dir(group, best=True), keep=1)
        self.scores = np.full(len(group.members), np.nan)
        self.steps = np.zeros(len(group.members), int)
        self.trained: Any = None  # params, stats and opt, on the host

    def restore(self, state: State, say: Callable[[str], None]) -> None:
        """Read the states of an earlier part of the run; `state` has the same shapes.

        `say` prints a line about damaged states, and one if none is left.
        """
        damaged: list[str] = []
        trains = self.program.method.trains
        restored = checkpoint.restore(self.manager, state, trains, damaged.append)
        for line in damaged:
            say(line)
        if damaged and restored is None:
            say(f"{self.manager.directory}: no best state is left; only later validations count")
        if restored is not None:
            part, record = restored
            self.trained = self._copy(part)
            self.scores, self.steps = (np.array(record[key]) for key in ("scores", "steps"))
            self.scores = self.scores.astype(float)  # None is NaN

    def update(
        self, step: int, values: Mapping[str, np.ndarray], state: State, diverged: Mapping[int, str]
    ) -> None:
        """Write the states of the members whose score is better than before.

        Args:
          step: the number of steps of the state.
          values: validation metrics, [members] each.
          state: on the devices.
          diverged: the members that are not finite, which keep their earlier states.

        Raises:
          UserError: the metric is not measured during a run.
        """
        name = next((name for name in self.names if name in values), None)
        if name is None:
            known = ", ".join(sorted(name.rpartition("/")[2] for name in values))
            raise UserError(
                f"keep_best needs select.metric, but {self.names[1]!r} is not measured during a "
                f"run; there are {known}"
            )
        scores = np.asarray(values[name], float)
        better = np.isnan(self.scores) | (self.sign * scores > self.sign * self.scores)
        better &= np.isfinite(scores) & ~np.isin(np.arange(len(scores)), list(diverged))
        if not better.any():
            return
        plain = self.program.layout.fetch(state)
        new, old = self._copy(plain), self.trained
        if old is not None:
            new = jax.tree.map(
                lambda a, b: np.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
            )
        self.trained = new
        self.scores[better], self.steps[better] = scores[better], step
        params, stats, opt = new
        best = plain._replace(
            params={**plain.params, **params}, stats={**plain.stats, **stats}, opt=opt
        )
        record = {
            "scores": [None if np.isnan(score) else float(score) for score in self.scores],
            "steps": self.steps.tolist(),
            "diverged": {str(row): text for row, text in diverged.items()},
        }
        latest = self.manager.latest_step()
        number = step if latest is None else max(step, latest + 1)  # a resumed run may be behind
        checkpoint.save(self.manager, best, self.program.method.trains, record, number=number)

    def _copy(self, state: State) -> Any:
        part = checkpoint.trained_part(state, self.program.method.trains)
        return jax.tree.map(np.array, (part.params, part.stats, part.opt))


@contextmanager
def open_best(
    experiment: Experiment,
    group: MemberGroup,
    program: Program,
    state: State,
    say: Callable[[str], None],
) -> Iterator[BestStates | None]:
    """Yield the best states of a group, or None without `keep_best`; `state` has their shapes."""
    if not experiment.config.keep_best:
        yield None
        return
    states = BestStates(experiment, group, program)
    try:
        states.restore(state, say)
        yield states
    finally:
        checkpoint.close(states.manager)
