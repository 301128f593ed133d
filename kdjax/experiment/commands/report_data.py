"""report.json: everything that the report shows, from the outcomes of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.evaluation import classification
from kdjax.experiment.build.plan import Run, Variant
from kdjax.experiment.run import workdir
from kdjax.train.sweep import Member


def make_report(
    run: Run, outcomes: Sequence[Mapping[str, Any]], *, title: str, command: str, complete: bool
) -> dict[str, Any]:
    """Put a run's outcomes together; see `report/` for what reads it."""
    config = run.config
    by_name = {variant.name: variant for variant in run.variants}
    samples = {
        f"{outcome['name']}, {role}": {
            split: roles[role] for split, roles in outcome["shown"].items() if role in roles
        }
        for outcome in outcomes
        if outcome["shown"]
        for role, player in by_name[outcome["name"]].table.items()
        if player.terms
    }
    panels = run.task.panels(run.evaluation(), samples)
    return {
        "title": title,
        "command": command,
        "versions": workdir.versions(),
        "device": workdir.device(),
        "data": {
            "name": config["data"]["name"],
            "num_classes": run.source.spec.num_classes,
            "class_names": list(run.source.spec.class_names),
            "sizes": dict(run.source.size),
        },
        "steps": config["num_steps"],
        "batch_size": config["batch_size"],
        "epochs": config["num_steps"] * config["batch_size"] / run.source.size["train"],
        "wall_seconds": sum(outcome["seconds"] for outcome in outcomes),
        "complete": complete,
        "selection": {
            "split": "validation",
            "metric": run.selection.metric,
            "over": swept_paths([m for variant in run.variants for m in variant.members]),
        },
        "variants": [_variant(by_name[outcome["name"]], outcome) for outcome in outcomes],
        "config": workdir.plain(config),
        **({"pictures": panels} if panels else {}),
    }


def swept_paths(members: Sequence[Member]) -> list[str]:
    """Paths other than the seed with more than one value."""
    paths = dict.fromkeys(path for member in members for path in member if path != "seed")
    return [path for path in paths if len({m[path] for m in members if path in m}) > 1]


def _variant(variant: Variant, outcome: Mapping[str, Any]) -> dict[str, Any]:
    roles = {}
    for role, player in variant.table.items():
        said = variant.config["roles"][role]
        source = None
        if role in variant.from_variant:
            source = f"variant {variant.from_variant[role]}"
        elif role in variant.given:
            source = f"checkpoint {said['checkpoint']}"
        roles[role] = {
            "model": said["model"]["name"],
            "parameters": variant.parameters[role],
            "trains": player.trains,
            "source": source,
        }
    return {
        "name": variant.name,
        "roles": roles,
        "members": outcome["members"],
        "chosen": outcome["chosen"],
        "reliability": {
            role: {when: _pooled(bins, outcome["chosen"][role]) for when, bins in both.items()}
            for role, both in outcome["bins"].items()
        },
    }


def _pooled(bins: Mapping[str, np.ndarray], chosen: Mapping[str, Any]) -> dict[str, list[float]]:
    return classification.pool_bins(bins, list(chosen["members"]))
