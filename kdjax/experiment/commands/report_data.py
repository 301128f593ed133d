"""The content of report.json, from the results of a run."""

from collections.abc import Iterable, Sequence

from kdjax.experiment.build.plan import Experiment
from kdjax.experiment.config import resolve
from kdjax.experiment.run import network_cost, workdir
from kdjax.report.results import (
    DataSummary,
    DetectionPicture,
    RunSummary,
    Selection,
    TextSample,
    VariantResult,
    from_json,
)
from kdjax.train import multihost
from kdjax.train.sweep import Member


def make_report(
    experiment: Experiment,
    results: Sequence[VariantResult],
    *,
    title: str,
    command: str,
    complete: bool,
) -> RunSummary:
    """Return the summary of a run for the report."""
    config, source = experiment.config, experiment.source
    if multihost.is_first():
        results = network_cost.add_costs(experiment, results)
    return RunSummary(
        title=title,
        command=command,
        versions=workdir.versions(),
        device=workdir.device(),
        data=DataSummary(
            name=config.data.name,
            num_classes=source.spec.num_classes,
            class_names=tuple(source.spec.class_names),
            sizes=dict(source.size),
            notes=experiment.task.describe_data(experiment.data.dataset),
        ),
        steps=config.num_steps,
        batch_size=config.batch_size,
        epochs=config.num_steps * config.batch_size / source.size["train"],
        wall_seconds=sum(result.seconds for result in results),
        complete=complete,
        selection=Selection(
            metric=experiment.selection.metric,
            lower_is_better=not experiment.selection.higher_is_better,
            over=tuple(
                dict.fromkeys(p for v in experiment.variants for p in swept_paths(v.members))
            ),
        ),
        variants=tuple(results),
        config=resolve.to_dict(config),
        pictures=_pictures(experiment, results),
        texts=_texts(results),
    )


def swept_paths(members: Iterable[Member]) -> list[str]:
    """Return the paths other than the seed with more than one value."""
    values: dict[str, set[object]] = {}
    for member in members:
        for path, value in member.items():
            values.setdefault(path, set()).add(value)
    return [path for path in values if path != "seed" and len(values[path]) > 1]


def _texts(results: Iterable[VariantResult]) -> tuple[TextSample, ...]:
    """Collect what networks wrote behind the same prompts; a frozen one wrote before."""
    written: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        for role, samples in result.detections.get("texts", {}).items():
            for sample in samples if result.roles[role].trains else ():
                texts = written.setdefault((sample["prompt"], sample["reference"]), {})
                texts[f"{result.title or result.name}, {role}"] = sample["text"]
    return tuple(
        TextSample(prompt=prompt, reference=reference, texts=texts)
        for (prompt, reference), texts in written.items()
    )


def _pictures(
    experiment: Experiment, results: Iterable[VariantResult]
) -> tuple[DetectionPicture, ...]:
    """Draw the sampled photographs with the boxes of every detector that has terms."""
    learning = {
        (variant.name, role)
        for variant in experiment.variants
        for role, player in variant.players.items()
        if player.terms
    }
    samples = {
        f"{result.name}, {role}": {
            split: boxes[role] for split, boxes in result.detections.items() if role in boxes
        }
        for result in results
        if result.detections
        for role in result.roles
        if (result.name, role) in learning
    }
    pictures = experiment.task.panels(experiment.evaluation(), samples)
    return tuple(from_json(DetectionPicture, picture) for picture in pictures)
