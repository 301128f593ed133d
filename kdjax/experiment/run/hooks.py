"""What happens between the steps of a part: log lines, validation, checkpoints, the bar."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from kdjax import data
from kdjax.evaluation import EvalSpec, Predictions
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.program import Program
from kdjax.report.metrics_log import MetricsLog, NullLog
from kdjax.report.progress import Progress
from kdjax.train import checkpoint, loop, multihost, step_memory
from kdjax.train.predict import collect
from kdjax.types import State


class TrainHooks:
    """The hooks of one part of a run; holds what they share."""

    def __init__(
        self,
        run: Experiment,
        variant: Variant,
        members: tuple[int, ...],
        program: Program,
        log: MetricsLog | NullLog,
        manager: ocp.CheckpointManager,
        tracker: loop.DivergenceTracker,
        frozen: Mapping[str, str],
    ) -> None:
        """Keep the pieces; nothing happens yet."""
        self.run, self.variant, self.members, self.program = run, variant, members, program
        self.log, self.manager, self.tracker, self.frozen = log, manager, tracker, frozen
        self.sweeping = len(variant.members) > 1
        self.named = len(run.variants) > 1 or variant.name != "default"

    def fit(self, state: State) -> State:
        """Train from the state's own step to the end; returns a plain state."""
        config, layout = self.run.config, self.program.layout
        start, total = int(state.step), config["num_steps"]
        label = self.variant.name if self.named else "train"
        every = loop.Every(
            config["log_every"],
            config["eval_every"],
            config["checkpoint_every"],
            config["grad_norm_every"],
        )
        console = None if multihost.is_first() else Console(quiet=True)
        with Progress(total, label=label, console=console) as progress:
            hooks = loop.Hooks(
                step=self.program.step,
                multi_step=self.program.multi_step,
                steps_per_dispatch=self.program.steps_per_dispatch,
                read=layout.read,
                log=lambda step, values: self.write(step, "train", values),
                evaluate=self.validate,
                save=self.save,
                grad_norms=lambda s, b: layout.read(self.program.grad_norms(s, b)),
                on_progress=lambda step, values, speed: progress.update(
                    step, self.shown(values), speed
                ),
                warn=lambda text: progress.say(f"{label}: {text}"),
            )
            placed, batches = layout.place(state), device_batches(self.run, self.program, start)
            if start < total:
                batches = self.log_step_memory(placed, batches, hooks.warn)
            images_per_step = config["batch_size"] * len(self.members)
            plan = loop.Plan(start, total, images_per_step, every)
            placed = loop.fit(hooks, placed, batches, plan, self.tracker)
        return layout.fetch(placed)

    def log_step_memory(
        self, placed: State, batches: Iterator[Any], say: Callable[[str], None]
    ) -> Iterator[Any]:
        """Compile the step and tell what it takes; returns the batches, none of them taken."""
        first = next(batches)
        found = step_memory.step_cost(self.program.step, placed, first)
        if found is not None:
            say(step_memory.describe(found))
            trouble = step_memory.warning(found, step_memory.memory_of(jax.local_devices()[0]))
            if trouble:
                say(trouble)
        return itertools.chain([first], batches)

    def write(self, step: int, split: str, values: Mapping[str, np.ndarray]) -> None:
        """One line a member, of the first process."""
        if not multihost.is_first():
            return
        for row, number in enumerate(self.members):
            self.log.write(
                step,
                split,
                {name: float(value[row]) for name, value in values.items()},
                variant=self.variant.name if self.named else None,
                member=number if self.sweeping else None,
                swept=self.variant.members[number] if self.sweeping else None,
            )

    def shown(self, values: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Loss and accuracy of the role that is chosen by, averaged over healthy members."""
        role = self.run.config["select"]["role"]
        role = role if role in self.variant.players else next(iter(self.variant.players))
        rows = range(len(self.members))
        good = [row for row in rows if row not in self.tracker.diverged] or list(rows)
        found = {}
        for name in ("loss", "accuracy"):
            if f"{role}/{name}" in values:
                found[name] = float(np.mean(values[f"{role}/{name}"][good]))
        return found

    def validate(self, step: int, state: State) -> None:
        """Score validation, and what is learned from if that is judged too, and write it down."""
        evaluation = self.run.evaluation(self.variant)
        predict, task = _predict(self.run, evaluation, self.program, state), self.run.task
        fitted = task.fit(predict, False)
        beside = [split for split in self.run.source.evals if split == "test_train"]
        for split in ("validation", *beside):
            self.write(step, split, task.validation_metrics(evaluation, predict(split), fitted))

    def save(self, state: State) -> None:
        """Checkpoint a state that lives on the devices."""
        record = {
            "offset": self.log.offset(),
            "diverged": {str(k): v for k, v in self.tracker.diverged.items()},
            "frozen": dict(self.frozen),
        }
        plain = self.program.layout.fetch(state)
        checkpoint.save(self.manager, plain, self.program.method.trains, record)

    def test(self, outcome: Mapping[str, Any]) -> None:
        """Write down the final scores on the test split."""
        rows = [member["results"]["test"] for member in outcome["members"]]
        values = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
        self.write(self.run.config["num_steps"], "test", values)


def score(
    run: Experiment,
    variant: Variant,
    members: tuple[int, ...],
    program: Program,
    state: State,
    tracker: loop.DivergenceTracker,
) -> dict[str, Any]:
    """Final scores on validation and test, with temperatures fitted on validation.

    Returns:
      {"members": rows as report.json holds them, "bins": role -> "before" | "after" -> bins of
      the test split, [members, bins], "shown": split -> what is drawn of it}.
    """
    bins, evaluation = {}, run.evaluation(variant)
    predict = _predict(run, evaluation, program, program.layout.place(state))
    fitted = run.task.fit(predict, True)
    results: dict[str, dict[str, np.ndarray]] = {}
    pictures = {}
    extra = [split for split in run.source.evals if split.startswith("test_")]
    for split in ("validation", *extra, "test"):
        predictions = predict(split)
        results[split], bins = run.task.test_metrics(evaluation, predictions, fitted)
        if multihost.is_first():
            pictures[split] = run.task.samples(evaluation, split, predictions.outputs)
    rows = [
        {
            "member": number,
            "values": dict(variant.members[number]),
            "diverged": tracker.diverged.get(row),
            "results": {
                split: {name: _finite(value[row]) for name, value in values.items()}
                for split, values in results.items()
            },
        }
        for row, number in enumerate(members)
    ]
    return {"members": rows, "bins": bins, "shown": pictures}


def _predict(
    run: Experiment, evaluation: EvalSpec, program: Program, state: State
) -> Callable[[str], Predictions]:
    """A function that computes the outputs of all roles on a split, once; `state` on devices."""

    @functools.cache
    def predict(split: str) -> Predictions:
        source = data.shard_source(run.source, jax.process_index(), jax.process_count())
        batches = source.evals[split]()
        outputs, labels = collect(program.predict, state, batches, program.eval_layout)
        critics = run.task.estimates(evaluation, outputs, lambda: program.layout.fetch(state))
        return Predictions(split, outputs, labels, critics)

    return predict


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
