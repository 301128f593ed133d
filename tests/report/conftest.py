"""Synthetic reports with the schema of a real report.json."""

import itertools

import numpy as np
import pytest

LEARNING_RATE = "roles.*.optimizer.learning_rate"
TEMPERATURE = "roles.student.terms.balanced_kl.temperature"
EMPHASIS = "roles.student.terms.balanced_kl.emphasis"


def _scores(rng, accuracy):
    ece = abs(0.04 + 0.3 * (1 - accuracy) + rng.normal(0, 0.004))
    nll = 0.1 + 2.5 * (1 - accuracy) + rng.normal(0, 0.01)
    return {
        "accuracy": accuracy,
        "ece": ece,
        "nll": nll,
        "brier": 1.6 * (1 - accuracy) + 0.01,
        "adaptive_ece": 0.9 * ece,
        "classwise_ece": 0.2 * ece,
        "maximum_ce": 4 * ece,
        "temperature": 1.0 + 6 * ece,
        "ece_calibrated": 0.4 * ece,
        "nll_calibrated": 0.93 * nll,
    }


def _bins(rng, shift):
    count = np.round(360 * 5 * np.linspace(0, 1, 15) ** 6 / 2.6)
    confidence = np.where(count > 0, (np.arange(15) + 0.5) / 15, 0)
    accuracy = np.clip(confidence - shift + rng.normal(0, 0.02, 15), 0, 1)
    return {
        "count": count.tolist(),
        "accuracy": np.where(count > 0, accuracy, 0).tolist(),
        "confidence": confidence.tolist(),
    }


def _variant(name, index, roles, sweep, seeds, rng):
    points = list(itertools.product(*sweep.values()))
    members, means = [], []
    for place, point in enumerate(points):
        quality = 0.985 - 0.002 * index - 0.012 * (place - 1.3 * len(points) / 2) ** 2 / len(points)
        for seed in range(seeds):
            values = {"seed": seed, **dict(zip(sweep, point, strict=True))}
            results = {"validation": {}, "test": {}}
            for split, scores in results.items():
                for role in roles:
                    level = quality - (0.03 if role == "student" else 0.0)
                    level = min(1.0, level + rng.normal(0, 0.005) - 0.004 * (split == "test"))
                    scores.update({f"{role}/{k}": v for k, v in _scores(rng, level).items()})
                scores["agreement"] = 0.95
            members.append(
                {"member": len(members), "values": values, "diverged": None, "results": results}
            )
        means.append(
            np.mean([m["results"]["validation"]["student/accuracy"] for m in members[-seeds:]])
            if "student" in roles
            else -place
        )
    best = int(np.argmax(means))
    choice = {
        "values": dict(zip(sweep, points[best], strict=True)),
        "members": list(range(best * seeds, (best + 1) * seeds)),
    }
    return {
        "name": name,
        "roles": {
            role: {
                "model": "mlp",
                "parameters": 26122 if role != "student" else 1210,
                "trains": not (name == "kd" and role == "teacher"),
                "source": "variant alone" if name == "kd" and role == "teacher" else None,
            }
            for role in roles
        },
        "members": members,
        "chosen": dict.fromkeys(roles, choice),
        "reliability": {
            role: {"before": _bins(rng, 0.09), "after": _bins(rng, 0.02)} for role in roles
        },
    }


def make_report(
    variants=("alone", "kd", "bdkd"),
    roles=("teacher", "student"),
    sweep=None,
    seeds=3,
    data="digits",
):
    """Return a synthetic report; every number comes from a seeded generator."""
    rng = np.random.default_rng(0)
    sweep = {LEARNING_RATE: [0.003, 0.01, 0.03, 0.1]} if sweep is None else sweep
    return {
        "title": "Digits: alone, KD and BD-KD at equal budget",
        "command": "python -m kdjax train --config=experiments/digits_compare.py --workdir=runs/d",
        "versions": {"python": "3.11.2", "jax": "0.10.2", "kdjax": "0.1.0", "commit": "abc1234"},
        "device": "cpu x1",
        "data": {
            "name": data,
            "num_classes": 10,
            "class_names": [str(i) for i in range(10)],
            "sizes": {"train": 1077, "validation": 360, "test": 360},
        },
        "steps": 1000,
        "batch_size": 64,
        "epochs": 59.4,
        "wall_seconds": 61.0,
        "complete": True,
        "selection": {"split": "validation", "metric": "accuracy", "over": list(sweep)},
        "variants": [
            _variant(name, index, roles, sweep, seeds, rng) for index, name in enumerate(variants)
        ],
        "config": {"seed": 0, "num_steps": 1000, "roles": {role: {"terms": {}} for role in roles}},
    }


def make_metrics(report, every=50):
    """Return synthetic lines of the metrics.jsonl of `report`."""
    rng = np.random.default_rng(1)
    lines = []
    for variant in report["variants"]:
        for step in range(every, report["steps"] + 1, every):
            for member in variant["members"]:
                run = {"variant": variant["name"], "member": member["member"], **member["values"]}
                line = {"step": step, "split": "validation", **run}
                for role in () if member["diverged"] else variant["roles"]:
                    end = member["results"]["validation"][f"{role}/accuracy"]
                    left = np.exp(-step / 120) + rng.normal(0, 0.002)
                    line[f"{role}/accuracy"] = end - 0.8 * left
                    line[f"{role}/nll"] = 2.2 * left + 0.1 + 2.5 * (1 - end)
                lines.append(line)
    return lines


@pytest.fixture
def report():
    return make_report()


@pytest.fixture
def build_report():
    return make_report


@pytest.fixture
def build_metrics():
    return make_metrics
