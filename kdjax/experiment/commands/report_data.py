"""report.json: everything that the report shows, from the outcomes of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.evaluation import classification
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import workdir
from kdjax.report.results import (
    DataSummary,
    DetectionPicture,
    PlayerSummary,
    RunSummary,
    Selection,
    VariantResult,
    from_json,
)
from kdjax.train.sweep import Member


def make_report(
    run: Experiment,
    outcomes: Sequence[Mapping[str, Any]],
    *,
    title: str,
    command: str,
    complete: bool,
) -> RunSummary:
    """Put a run's outcomes together as the report shows them."""
    config = run.config
    by_name = {variant.name: variant for variant in run.variants}
    samples = {
        f"{outcome['name']}, {role}": {
            split: roles[role] for split, roles in outcome["shown"].items() if role in roles
        }
        for outcome in outcomes
        if outcome["shown"]
        for role, player in by_name[outcome["name"]].players.items()
        if player.terms
    }
    panels = run.task.panels(run.evaluation(), samples)
    return RunSummary(
        title=title,
        command=command,
        versions=workdir.versions(),
        device=workdir.device(),
        data=DataSummary(
            name=config["data"]["name"],
            num_classes=run.source.spec.num_classes,
            class_names=tuple(run.source.spec.class_names),
            sizes=dict(run.source.size),
        ),
        steps=config["num_steps"],
        batch_size=config["batch_size"],
        epochs=config["num_steps"] * config["batch_size"] / run.source.size["train"],
        wall_seconds=sum(outcome["seconds"] for outcome in outcomes),
        complete=complete,
        selection=Selection(
            metric=run.selection.metric,
            over=tuple(swept_paths([m for variant in run.variants for m in variant.members])),
        ),
        variants=tuple(_variant(by_name[outcome["name"]], outcome) for outcome in outcomes),
        config=workdir.plain(config),
        pictures=tuple(from_json(DetectionPicture, p) for p in panels),
    )


def swept_paths(members: Sequence[Member]) -> list[str]:
    """Paths other than the seed with more than one value."""
    paths = dict.fromkeys(path for member in members for path in member if path != "seed")
    return [path for path in paths if len({m[path] for m in members if path in m}) > 1]


def _variant(variant: Variant, outcome: Mapping[str, Any]) -> VariantResult:
    pooled = {
        role: {
            when: classification.pool_bins(bins, list(outcome["chosen"][role]["members"]))
            for when, bins in both.items()
        }
        for role, both in outcome["bins"].items()
    }
    content = {**outcome, "roles": {}, "reliability": pooled}
    roles = {role: _player(variant, role) for role in variant.players}
    return dataclasses.replace(from_json(VariantResult, content), roles=roles)


def _player(variant: Variant, role: str) -> PlayerSummary:
    config = variant.config["roles"][role]
    source = None
    if role in variant.from_variant:
        source = f"variant {variant.from_variant[role]}"
    elif role in variant.initial_variables:
        source = f"checkpoint {config['checkpoint']}"
    return PlayerSummary(
        model=config["model"]["name"],
        parameters=variant.parameters[role],
        trains=variant.players[role].trains,
        source=source,
    )
