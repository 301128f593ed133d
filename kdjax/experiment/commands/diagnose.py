"""Bounds on the loss gap of a run, from the distances of training and test data at every layer.

Layer l has the representation T_l and the downstream Lipschitz constant L_l (of
`models.certificates`); Y is the label. Cross-entropy is sqrt(2)-Lipschitz in the logits, and
another label changes it by at most the range R of the observed logits. So with the distance
|t - t'| + (R / sqrt 2) [y != y']

    |mean test loss - mean training loss| <= sqrt(2) max(1, L_l) W1(training, test)     for every l

holds for these weights and these samples with certainty. Every report asserts it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp

from kdjax import bounds, models
from kdjax.bounds.layer_distances import LayerDistances, layer_distances
from kdjax.data import unpad_batch
from kdjax.errors import RunError, UserError
from kdjax.experiment.build import models as experiment_models
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.train import RunResults, load_results
from kdjax.models import certificates
from kdjax.report import bounds_tables, files, html
from kdjax.report.files import Path
from kdjax.report.results import BoundsSummary, LayerBound, NetworkBounds
from kdjax.report.table import show
from kdjax.types import Batch, Variables

RHO = math.sqrt(2)  # Lipschitz constant of cross-entropy in the logits
SLACK = 1e-5  # float32 representations
CHUNK = 100  # examples of one forward pass
SPLITS = ("train", "test")

Activations = dict[str, np.ndarray]  # layer -> [examples, width] float64
Forward = Callable[[Variables, Batch], Activations]


class DiagnosisOptions(NamedTuple):
    """Layers, examples and networks of a diagnosis.

    `layers`: names; () means all. `samples`: the number of training and of test examples (at most
    the size of the smaller split), the first of a shuffle; the time of exact transport is cubic in
    it. `members`: "chosen" (of the first seed) or "all". `seed`: of the shuffle, the baseline and
    the slices.
    """

    layers: Sequence[str] = ()
    samples: int = 500
    members: str = "chosen"
    seed: int = 0


class _Network(NamedTuple):
    """A network of a finished run; `forward` is compiled once for all members of its role."""

    variant: Variant
    role: str
    member: int
    variables: Variables
    forward: Forward


def check_samples(samples: int) -> None:
    """Refuse fewer than two samples."""
    if samples < 2:
        raise UserError(f"--samples={samples}; it must be at least 2")


def write_bounds(
    experiment: Experiment,
    folder: Path,
    out: Path | None,
    options: DiagnosisOptions,
    command: str,
    say: Callable[[str], None],
) -> None:
    """Diagnose a run and write bounds.json and bounds.svg into `out` or next to its report.

    Raises:
      RunError: a loss gap that exceeds its bound.
    """
    networks = tuple(diagnose(experiment, folder, say, options))
    summary = BoundsSummary(command=command, networks=networks)
    written = bounds_tables.write_bounds(out or folder, summary)
    if out is None and files.exists(folder / "report.json"):
        written += [html.write(folder)]
    show(bounds_tables.bounds_table(networks))
    say(f"bounds: {', '.join(map(str, written))}")
    violated = [f"{n.variant} {n.role}" for n in networks if not n.held]
    if violated:
        raise RunError(
            f"the loss gap of {', '.join(violated)} exceeds its bound: please report this"
        )


def diagnose(
    experiment: Experiment,
    folder: Path,
    say: Callable[[str], None],
    options: DiagnosisOptions,
) -> list[NetworkBounds]:
    """Compute the bound of every layer of the networks of a finished run.

    Returns:
      One entry per network. A frozen network from a file appears once for each file; members that
      diverged or were dropped are omitted.

    Raises:
      UserError: no finished variant, unknown layers, networks without constants, fewer than two
        samples, a regression, or non-finite features.
    """
    if not experiment.task.has_bounds:
        raise UserError("bounds: only image classification is supported, not text or regression")
    check_samples(options.samples)
    results = load_results(experiment, folder, say)
    if not results.outcomes:
        raise UserError(f"workdir {folder} contains no finished variant; train first")
    # with equal numbers from both splits, exact transport is an assignment
    size = min(options.samples, *(experiment.source.size[split] for split in SPLITS))
    examples = {split: _draw_examples(experiment, split, size, options.seed) for split in SPLITS}
    return [
        _bound_network(network, examples, experiment.source.spec.shape, options)
        for network in _networks(experiment, results, options.members, say)
    ]


def _networks(
    experiment: Experiment, results: RunResults, members: str, say: Callable[[str], None]
) -> Iterator[_Network]:
    """Yield the networks to diagnose; a frozen network once, where it was trained or first read."""
    checkpoints: set[str | None] = set()
    for variant in experiment.variants:
        if variant.name not in results.outcomes:
            continue
        stacked, outcome = results.networks(variant), results.outcomes[variant.name]
        for role in variant.players:
            checkpoint = variant.config.roles[role].checkpoint
            frozen = role not in variant.optimizers
            if frozen and (role in variant.from_variant or checkpoint in checkpoints):
                continue
            if frozen:
                checkpoints.add(checkpoint)
            every = members == "all" and not frozen
            rows = range(len(variant.members)) if every else outcome.chosen[role].members[:1]
            forward = _make_forward(experiment, variant, role)
            for row in rows:
                member = outcome.members[row]
                if member.diverged or member.dropped is not None:
                    how = "diverged" if member.diverged else f"was dropped at step {member.dropped}"
                    say(f"{variant.name}: member {row} {how} and is omitted")
                    continue
                variables = jax.tree.map(lambda x, row=row: x[row], stacked[role])
                yield _Network(variant, role, row, models.strip_wrappers(variables), forward)


def _draw_examples(
    experiment: Experiment, split: str, samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Sample raw examples of a split, the same for every network."""
    batches = [unpad_batch(batch) for batch in experiment.source.evals[split]()]
    table = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    size = len(table["label"])
    if size < 2:
        raise UserError(f"the {split} split has {size} examples; bounds need two or more")
    rows = np.random.default_rng(seed).permutation(size)[:samples]
    return {name: values[rows] for name, values in table.items()}


def _bound_network(
    network: _Network,
    examples: Mapping[str, Mapping[str, np.ndarray]],
    shape: Sequence[int],
    options: DiagnosisOptions,
) -> NetworkBounds:
    variant, role, member, variables, forward = network
    table = variant.config.roles[role].model
    name = table.name
    if name == "MobileNetV2" and table.options.get("stem", "cifar") != "cifar":
        raise UserError(f"bounds: of MobileNetV2 only stem='cifar' is known, which {role} lacks")
    stages = certificates.layer_constants(name, variables, shape)
    downstream = certificates.downstream_constants(stages)
    tails = {stage.name: float(tail) for stage, tail in zip(stages, downstream, strict=True)}
    for layer in options.layers:
        if layer not in tails:
            known = ", ".join(tails)
            raise UserError(f"--layers: {role} has no layer {layer!r}; it has {known}")
    activations = {split: forward(variables, batch) for split, batch in examples.items()}
    labels = {split: np.asarray(batch["label"]) for split, batch in examples.items()}
    logits = {split: activations[split]["logits"] for split in SPLITS}
    losses = {split: float(_cross_entropy(logits[split], labels[split]).mean()) for split in SPLITS}
    gap = losses["test"] - losses["train"]
    label_cost = float(np.ptp(np.concatenate([*logits.values()]), axis=1).max()) / RHO
    selected = [layer for layer in tails if not options.layers or layer in options.layers]
    train, test = ({layer: activations[split][layer] for layer in selected} for split in SPLITS)
    class_pair = (labels["train"], labels["test"])
    distances = layer_distances(train, test, class_pair, label_cost, options.seed)
    layers = _bound_layers(distances, tails)
    values = np.array([layer.bound for layer in layers])
    return NetworkBounds(
        variant=variant.name,
        role=role,
        member=member,
        values=dict(variant.members[member]),
        gap=gap,
        losses=losses,
        label_cost=label_cost,
        samples={split: len(labels[split]) for split in SPLITS},
        layers=layers,
        funnel=layers[int(bounds.funnel_layer(values))].name,
        held=bool(np.all(abs(gap) <= values * (1 + SLACK) + SLACK)),
    )


def _bound_layers(
    distances: Mapping[str, LayerDistances], tails: Mapping[str, float]
) -> tuple[LayerBound, ...]:
    w1 = np.array([distance.w1 for distance in distances.values()])
    constants = np.array([tails[layer] for layer in distances])
    values = np.asarray(bounds.wasserstein_bound(w1, constants, loss_lipschitz=RHO))
    return tuple(
        LayerBound(
            name=layer,
            tail=tails[layer],
            w1=distance.w1,
            baseline=distance.baseline,
            sliced=distance.sliced,
            entropic=distance.entropic,
            bound=float(value),
        )
        for (layer, distance), value in zip(distances.items(), values, strict=True)
    )


def _make_forward(experiment: Experiment, variant: Variant, role: str) -> Forward:
    """Compile the forward pass of a role to the activations of every layer.

    "input" is the prepared image. The network has no additions of terms, such as adapters and class
    means.
    """
    model = experiment_models.make_network(role, variant.config, experiment.data, None)

    @jax.jit
    def compiled(variables: Variables, batch: Mapping[str, Any]):
        prepared = experiment.prepare_eval(dict(batch))
        outputs, _ = model.apply(variables, prepared, train=False)
        return {"input": prepared["image"], **outputs.features, "logits": outputs.logits}

    def forward(variables: Variables, batch: Batch) -> Activations:
        size = len(batch["label"])
        # chunks of equal size (the last overlaps) bound memory and need one compilation
        starts = sorted({*range(0, max(size - CHUNK, 1), CHUNK), max(size - CHUNK, 0)})
        activations: Activations = {}
        for start in starts:
            chunk = {name: x[start : start + CHUNK] for name, x in batch.items()}
            for layer, x in jax.device_get(compiled(variables, chunk)).items():
                rows = activations.setdefault(layer, np.zeros((size, x[0].size)))
                rows[start : start + CHUNK] = np.asarray(x, np.float64).reshape(len(x), -1)
        return activations

    return forward


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
