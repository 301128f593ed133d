"""The hooks of the training loop (log lines, validation, progress), and the final scores."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from kdjax import data, models
from kdjax.evaluation import EvalSpec, Predictions
from kdjax.evaluation.task import Bins, Predict
from kdjax.evaluation.text_samples import Writer
from kdjax.experiment.build.models import make_network
from kdjax.experiment.build.plan import Experiment
from kdjax.experiment.run.best_states import BestStates, open_best
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import Program, device_batches
from kdjax.report.metrics_log import MetricsLog, NullLog
from kdjax.report.progress import Progress
from kdjax.report.results import MemberResult
from kdjax.train import loop, multihost, step_memory
from kdjax.train.predict import collect
from kdjax.types import State, Variables


class GroupScores(NamedTuple):
    """Final scores of a group; the fields are those of `results.GroupResult`."""

    members: tuple[MemberResult, ...]
    bins: Bins
    samples: Mapping[str, Any]


class TrainHooks:
    """The hooks of the loop that trains one group of members."""

    def __init__(
        self,
        experiment: Experiment,
        group: MemberGroup,
        program: Program,
        log: MetricsLog | NullLog,
        tracker: loop.DivergenceTracker,
    ) -> None:
        """Store the arguments."""
        self.experiment, self.group, self.program = experiment, group, program
        self.log, self.tracker = log, tracker
        self.best: BestStates | None = None
        variant = group.variant
        self.sweeping = len(variant.members) > 1
        self.named = len(experiment.variants) > 1 or variant.name != "default"

    def fit(self, state: State, save: Callable[[State], None]) -> State:
        """Train from the state's step to the end, and return a state on one device.

        Args:
          state: a state on one device, stacked by member.
          save: writes a checkpoint of a state that is placed on the devices.
        """
        config, layout = self.experiment.config, self.program.layout
        start, total = int(state.step), self.group.last_step
        label = self.group.variant.name if self.named else "train"
        count = len(self.group.members)
        heading = f"{label}, median of {count} members" if count > 1 else label
        unit = self.experiment.task.unit
        every = loop.Every(
            config.log_every, config.eval_every, config.checkpoint_every, config.grad_norm_every
        )
        console = None if multihost.is_first() else Console(quiet=True)
        with Progress(total, label=heading, unit=unit, console=console) as progress:
            hooks = loop.Hooks(
                step=self.program.step,
                multi_step=self.program.multi_step,
                steps_per_dispatch=self.program.steps_per_dispatch,
                read=layout.read,
                log=lambda step, values: self.write(step, "train", values),
                evaluate=self.validate,
                save=save,
                grad_norms=lambda s, b: layout.read(self.program.grad_norms(s, b)),
                on_progress=lambda step, values, speed: progress.update(
                    step, self.progress_values(values), speed
                ),
                warn=lambda text: progress.say(f"{label}: {text}"),
            )
            placed = layout.place(state)
            batches = device_batches(self.experiment, self.program, start)
            if start < total:
                batches = self.log_step_memory(placed, batches, hooks.warn)
            images_per_step = config.batch_size * len(self.group.members)
            plan = loop.Plan(start, total, images_per_step, every)
            best = open_best(self.experiment, self.group, self.program, state, hooks.warn)
            with best as self.best:
                placed = loop.fit(hooks, placed, batches, plan, self.tracker)
        return layout.fetch(placed)

    def log_step_memory(
        self, placed: State, batches: Iterator[Any], say: Callable[[str], None]
    ) -> Iterator[Any]:
        """Compile the step and print its memory; return the batches, none of them consumed."""
        first = next(batches)
        cost = step_memory.step_cost(self.program.step, placed, first)
        if cost is not None:
            say(step_memory.describe(cost))
            warning = step_memory.warning(cost, step_memory.memory_of(jax.local_devices()[0]))
            if warning:
                say(warning)
        return itertools.chain([first], batches)

    def write(self, step: int, split: str, values: Mapping[str, np.ndarray]) -> None:
        """Write one line per member, in the first process."""
        if not multihost.is_first():
            return
        variant = self.group.variant
        for row, number in enumerate(self.group.members):
            self.log.write(
                step,
                split,
                {name: float(value[row]) for name, value in values.items()},
                variant=variant.name if self.named else None,
                member=number if self.sweeping else None,
                swept=variant.members[number] if self.sweeping else None,
            )

    def progress_values(self, values: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return loss and accuracy of the selecting role, the median of the finite members."""
        players, role = self.group.variant.players, self.experiment.selection.role
        role = role if role in players else next(iter(players))
        rows = range(len(self.group.members))
        finite = [row for row in rows if row not in self.tracker.diverged] or list(rows)
        return {
            f"{role} {name}": float(np.median(values[f"{role}/{name}"][finite]))
            for name in ("loss", "accuracy")
            if f"{role}/{name}" in values
        }

    def validate(self, step: int, state: State) -> None:
        """Log the scores on validation (and on training pictures, if they are evaluated)."""
        evaluation = self.experiment.evaluation(self.group.variant)
        predict = _predictor(self.experiment, evaluation, self.program, state)
        task = self.experiment.task
        fitted = task.fit(predict, False)
        extra = [split for split in self.experiment.source.evals if split == "test_train"]
        for split in ("validation", *extra):
            scores = task.validation_metrics(evaluation, predict(split), fitted)
            self.write(step, split, scores)
            if split == "validation" and self.best is not None:
                self.best.update(step, scores, state, self.tracker.diverged)

    def write_test(self, scores: GroupScores) -> None:
        """Log the final scores on the test split."""
        rows = [member.results["test"] for member in scores.members]
        values = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
        self.write(self.group.last_step, "test", values)


def score(
    experiment: Experiment,
    group: MemberGroup,
    program: Program,
    state: State,
    tracker: loop.DivergenceTracker,
    say: Callable[[str], None],
) -> GroupScores:
    """Return the final scores on validation and test, with temperatures fitted on validation.

    Members whose validation NLL is NaN have diverged.
    Texts and detections are those of the first member that has not diverged. A round of successive
    halving has only the scores on validation.
    """
    evaluation, task = experiment.evaluation(group.variant), experiment.task
    predict = _predictor(experiment, evaluation, program, program.layout.place(state))
    fitted = task.fit(predict, True)
    bins: Bins = {}
    results: dict[str, dict[str, np.ndarray]] = {}
    samples: dict[str, Any] = {}
    rows, finite = range(len(group.members)), 0
    extra = [split for split in experiment.source.evals if split.startswith("test_")]
    for split in ("validation", *extra, "test") if group.stop is None else ("validation",):
        predictions = predict(split)
        results[split], bins = task.test_metrics(evaluation, predictions, fitted)
        if split == "validation":
            for line in tracker.check_scores(group.last_step, results[split]):
                say(f"{group.variant.name}, {line}")
            finite = next((row for row in rows if row not in tracker.diverged), 0)
        if group.stop is None and multihost.is_first():
            outputs = {role: values[finite:] for role, values in predictions.outputs.items()}
            samples[split] = task.samples(evaluation, split, outputs)
    if group.stop is None and task.write_texts is not None:
        dataset, writers = experiment.data.dataset, _writers(experiment, group, program, state)
        if multihost.is_first():
            first = {role: members[finite] for role, members in writers.items()}
            samples["texts"] = task.write_texts(dataset, first)
        if task.score_texts is not None:
            results["test"] |= task.score_texts(dataset, writers)
    members = tuple(
        MemberResult(
            member=number,
            values=dict(group.variant.members[number]),
            diverged=tracker.diverged.get(row),
            dropped=group.stop,  # unless a later round has its scores, too
            results={
                split: {name: float(value[row]) for name, value in values.items()}
                for split, values in results.items()
            },
        )
        for row, number in enumerate(group.members)
    )
    return GroupScores(members, bins if group.stop is None else {}, samples)


def _writers(
    experiment: Experiment, group: MemberGroup, program: Program, state: State
) -> dict[str, list[Writer]]:
    """Return the networks of a group's members, by role."""
    config, writers = group.variant.config, {}
    for role in group.variant.players:
        variables = models.strip_wrappers(Variables(state.params[role], state.stats[role]))
        model, entry = make_network(role, config, experiment.data, None), config.roles[role].input
        is_stacked = program.axes.params[role] is not None
        members = [
            jax.tree.map(operator.itemgetter(row), variables) if is_stacked else variables
            for row in range(len(group.members))
        ]
        writers[role] = [Writer(model, each, entry) for each in members]
    return writers


def _predictor(
    experiment: Experiment, evaluation: EvalSpec, program: Program, state: State
) -> Predict:
    """Return a cached function from a split to its outputs; `state` is placed on the devices."""

    @functools.cache
    def predict(split: str) -> Predictions:
        source = data.shard_source(experiment.source, *program.eval_layout.block)
        batches = source.evals[split]()
        outputs, labels = collect(program.predict, state, batches, program.eval_layout)
        critics = experiment.task.estimates(
            evaluation, outputs, lambda: program.layout.fetch(state)
        )
        return Predictions(split, outputs, labels, critics)

    return predict
