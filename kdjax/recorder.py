"""What happens between the steps of a part: log lines, validation, checkpoints, the bar."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from kdjax import judging
from kdjax.build import Run, Variant
from kdjax.drawings import shown
from kdjax.program import Program, feed
from kdjax.report.log import MetricsLog, Progress
from kdjax.train import checkpoint, loop
from kdjax.train.evaluate import collect
from kdjax.types import State


class Recorder:
    """The hooks of one part of a run; holds what they share."""

    def __init__(
        self,
        run: Run,
        variant: Variant,
        members: tuple[int, ...],
        program: Program,
        log: MetricsLog,
        manager: ocp.CheckpointManager,
        health: loop.Health,
        frozen: Mapping[str, str],
    ) -> None:
        """Keep the pieces; nothing happens yet."""
        self.run, self.variant, self.members, self.program = run, variant, members, program
        self.log, self.manager, self.health, self.frozen = log, manager, health, frozen
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
        with Progress(total, label=label) as progress:
            hooks = loop.Hooks(
                step=self.program.step,
                read=layout.read,
                log=lambda step, values: self.write(step, "train", values),
                evaluate=self.validate,
                save=self.save,
                grad_norms=lambda s, b: layout.read(self.program.grad_norms(s, b)),
                tick=lambda step, values, speed: progress.update(step, self.shown(values), speed),
                warn=lambda text: progress.say(f"{label}: {text}"),
            )
            placed = loop.fit(
                hooks,
                layout.place(state),
                feed(self.run, self.program, start),
                start=start,
                num_steps=total,
                images_per_step=config["batch_size"] * len(self.members),
                every=every,
                health=self.health,
            )
        return layout.fetch(placed)

    def write(self, step: int, split: str, values: Mapping[str, np.ndarray]) -> None:
        """One line a member."""
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
        role = role if role in self.variant.table else next(iter(self.variant.table))
        rows = range(len(self.members))
        good = [row for row in rows if row not in self.health.diverged] or list(rows)
        found = {}
        for name in ("loss", "accuracy"):
            if f"{role}/{name}" in values:
                found[name] = float(np.mean(values[f"{role}/{name}"][good]))
        return found

    def validate(self, step: int, state: State) -> None:
        """Score the validation split and write it down."""
        answers = _answers(self.run, self.program, state, "validation")
        self.write(step, "validation", judging.brief(self.run, answers))

    def save(self, state: State) -> None:
        """Checkpoint a state that lives on the devices."""
        record = {
            "offset": self.log.offset(),
            "diverged": {str(k): v for k, v in self.health.diverged.items()},
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
    run: Run,
    variant: Variant,
    members: tuple[int, ...],
    program: Program,
    state: State,
    health: loop.Health,
) -> dict[str, Any]:
    """Final scores on validation and test, with temperatures fitted on validation.

    Returns:
      {"members": rows as report.json holds them, "bins": role -> "before" | "after" -> bins of
      the test split, [members, bins], "shown": split -> what is drawn of it}.
    """
    placed, bins, fitted = program.layout.place(state), {}, {}
    results: dict[str, dict[str, np.ndarray]] = {}
    pictures = {}
    extra = [split for split in run.source.evals if split.startswith("test_")]
    for split in ("validation", *extra, "test"):
        answers = _answers(run, program, placed, split)
        if split == "validation":
            fitted = judging.temperatures(run, answers)
        results[split], bins = judging.full(run, answers, fitted)
        pictures[split] = shown(run, split, answers.logits)
    rows = [
        {
            "member": number,
            "values": dict(variant.members[number]),
            "diverged": health.diverged.get(row),
            "results": {
                split: {name: _finite(value[row]) for name, value in values.items()}
                for split, values in results.items()
            },
        }
        for row, number in enumerate(members)
    ]
    return {"members": rows, "bins": bins, "shown": pictures}


def _answers(run: Run, program: Program, state: State, split: str) -> judging.Answers:
    """The outputs of all roles on a split; `state` on the devices."""
    batches = run.source.evals[split]()
    return judging.Answers(split, *collect(program.predict, state, batches, program.eval_layout))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
