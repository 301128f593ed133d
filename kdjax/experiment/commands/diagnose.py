"""Bounds of a real run: how far apart a layer sees training and test data, and what follows.

For layer l with representation T_l, label Y and downstream Lipschitz constant L_l (of `chains`),
and cross-entropy, which is sqrt(2)-Lipschitz in the logits: moving a label costs at most the range
R of the logits seen, so that under the distance |t - t'| + (R / sqrt 2) [y != y']

    |mean test loss - mean training loss| <= sqrt(2) max(1, L_l) W1(training, test)     for every l

holds for these weights and these samples, with no probability in it. Every report asserts it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

from kdjax import bounds, models
from kdjax.bounds.layer_distances import layer_distances
from kdjax.experiment.build import models as experiment_models
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run import train as running
from kdjax.models import certificates
from kdjax.types import UserError, Variables

__all__ = ["RHO", "diagnose"]

RHO = math.sqrt(2)  # Lipschitz constant of cross-entropy in the logits
SLACK = 1e-5  # float32 representations
CHUNK = 100  # examples of one forward pass
SPLITS = ("train", "test")


def diagnose(
    run: Experiment,
    folder: Path,
    say: Callable[[str], None],
    *,
    layers: Sequence[str] = (),
    samples: int = 500,
    members: str = "chosen",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compute the bound of every layer of the networks of a finished run.

    Args:
      run: from `build`.
      folder: its workdir.
      say: prints one line.
      layers: which, by name; all if none are named.
      samples: training and test examples each (or as many as both have), the first of a shuffle;
        exact transport takes their cube in time.
      members: "chosen" (of the first seed) or "all".
      seed: of the shuffle, the baseline and the slices.

    Returns:
      One dict a network: "variant", "role", "member", "values", "gap" (nats), "label_cost",
      "layers" (a list with "name", "tail", "w1", "baseline", "sliced", "entropic", "bound"),
      "funnel", "held". Frozen networks from a file are among them, once a file; members that
      diverged are not.

    Raises:
      UserError: nothing is trained, unknown layers, networks without constants, fewer than two
        samples, scores instead of classes, or non-finite features.
    """
    if not run.task.has_bounds:
        raise UserError("bounds: only classes of images have a diagnosis, not text or scores")
    if samples < 2:
        raise UserError(f"--samples={samples}; it must be at least 2")
    story = running.load_results(run, folder, say)
    if not story.outcomes:
        raise UserError(f"workdir {folder} holds no finished variant; train first")
    size = min(samples, *(run.source.size[split] for split in SPLITS))  # equal: an assignment
    data = {split: _take(run, split, size, seed) for split in SPLITS}
    found, files = [], set()
    for variant in run.variants:
        if variant.name not in story.outcomes:
            continue
        networks, outcome = story.networks(variant), story.outcomes[variant.name]
        for role in variant.players:
            file = variant.config["roles"][role]["checkpoint"]
            frozen = role not in variant.optimizers
            if frozen and (role in variant.from_variant or file in files):
                continue  # a frozen copy is told of where it was trained, or first read
            files |= {file} if frozen else set()
            rows = outcome["chosen"][role]["members"][:1]
            rows = range(len(variant.members)) if members == "all" and not frozen else rows
            look = _looker(run, variant, role)
            for row in rows:
                if outcome["members"][row]["diverged"]:
                    say(f"{variant.name}: member {row} diverged and is left out")
                    continue
                own = models.strip_wrappers(jax.tree.map(lambda x, row=row: x[row], networks[role]))
                seen = {split: look(own, raw) for split, raw in data.items()}
                labels = {split: np.asarray(raw["label"]) for split, raw in data.items()}
                said = variant.config["roles"][role]["model"]
                stages = certificates.layer_constants(said["name"], own, run.source.spec.shape)
                told = _network(role, stages, seen, labels, layers, seed)
                values = dict(variant.members[row])
                about = {"variant": variant.name, "role": role, "member": row, "values": values}
                found.append({**about, **told})
    return found


def _take(run: Experiment, split: str, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Draw raw examples of a split, the same ones for every network."""
    rows: dict[str, list[np.ndarray]] = {}
    for batch in run.source.evals[split]():
        real = np.asarray(batch["mask"]) > 0
        for name in batch:
            rows.setdefault(name, []).append(np.asarray(batch[name])[real])
    whole = {name: np.concatenate(parts) for name, parts in rows.items()}
    size = len(whole["label"])
    if size < 2:
        raise UserError(f"the {split} split has {size} examples; bounds need two or more")
    keep = np.random.default_rng(seed).permutation(size)[:samples]
    return {name: values[keep] for name, values in whole.items()}


def _network(
    role: str,
    stages: Sequence[certificates.Stage],
    seen: Mapping[str, Mapping[str, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    wanted: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    names = [stage.name for stage in stages]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"--layers: {role} has no layer {unknown[0]!r}; it has {', '.join(names)}")
    losses = {s: _cross_entropy(seen[s]["logits"], labels[s]) for s in seen}
    gap = float(losses["test"].mean() - losses["train"].mean())
    logits = np.concatenate([seen["train"]["logits"], seen["test"]["logits"]])
    cost = float(np.ptp(logits, axis=1).max()) / RHO
    tails = dict(zip(names, certificates.downstream_constants(stages), strict=True))
    kept = [name for name in names if not wanted or name in wanted]
    train, test = ({name: seen[s][name] for name in kept} for s in SPLITS)
    apart = layer_distances(train, test, (labels["train"], labels["test"]), cost, seed)
    told = [{"name": name, "tail": float(tails[name]), **apart[name]._asdict()} for name in kept]
    w1, tail = (np.array([row[key] for row in told]) for key in ("w1", "tail"))
    values = np.asarray(bounds.wasserstein_bound(w1, tail, loss_lipschitz=RHO))
    for row, value in zip(told, values, strict=True):
        row["bound"] = float(value)
    return {
        "gap": gap,
        "losses": {split: float(values.mean()) for split, values in losses.items()},
        "label_cost": cost,
        "samples": {split: len(labels[split]) for split in labels},
        "layers": told,
        "funnel": told[int(bounds.funnel_layer(values))]["name"],
        "held": bool(np.all(abs(gap) <= values * (1 + SLACK) + SLACK)),
    }


def _looker(
    run: Experiment, variant: Variant, role: str
) -> Callable[[Variables, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Compile once what every layer of a role's network makes of examples, flat, float64.

    "input" is the prepared image. The network is the plain one, as variables are detached: without
    what terms add to it, such as adapters and class means.
    """
    model = experiment_models.make_network(role, variant.config, run.data, None)

    @jax.jit
    def forward(variables: Variables, batch: Mapping[str, Any]):
        ready = run.prepare_eval(dict(batch))
        outputs, _ = model.apply(variables, ready, train=False)
        return {"input": ready["image"], **outputs.features, "logits": outputs.logits}

    def look(variables: Variables, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        size = len(raw["label"])
        # chunks of one size, the last one overlapping: memory for a few, and one compilation
        starts = sorted({*range(0, max(size - CHUNK, 1), CHUNK), max(size - CHUNK, 0)})
        rows: dict[str, np.ndarray] = {}
        for start in starts:
            part = {name: x[start : start + CHUNK] for name, x in raw.items()}
            for name, x in jax.device_get(forward(variables, part)).items():
                whole = rows.setdefault(name, np.zeros((size, x[0].size)))
                whole[start : start + CHUNK] = np.asarray(x, np.float64).reshape(len(x), -1)
        return rows

    return look


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
