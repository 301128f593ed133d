"""Measurements behind the explanations of docs/results.md, of a run of experiments/fashion_all.py.

1. Directions: the gradient of each divergence in the student's logits beside that of cross-entropy
   with the labels, for teachers and students whose distributions overlap more and less.
2. Norms: length of the student's last features, and how much of it points to the teacher's class
   mean, for the rows with and without ND.
3. Entropies: mean entropy of teacher and student on validation over training, for the online rows.

    python benchmarks/mechanisms.py runs/fashion [--examples=2048]
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.experiment.build.build import build
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.results import RunResults, load_results
from kdjax.experiment.run.workdir import read_config
from kdjax.report import files
from kdjax.types import Array, Model, Outputs, Variables

ONLINE = ("dml", "kdcl", "switokd", "bdkd", "bdkd_forward", "bdkd_reverse", "bdkd_fixed")
TEMPERATURE = 2.0
BATCH = 64  # of SinKD
DIVERGENCES: Mapping[str, Callable[..., Array]] = {
    "forward KL": losses.forward_kl,
    "reverse KL": losses.reverse_kl,
    "Jensen-Shannon": losses.jensen_shannon,
    "total variation": losses.total_variation,
    "BD-KD": losses.balanced_kl,
    "SinKD": lambda s, t, temperature: jax.vmap(
        lambda *rows: losses.sinkhorn(*rows, temperature=temperature).cost
    )(*(z.reshape(-1, BATCH, z.shape[-1]) for z in (s, t))),
}


def directions(student: Array, teacher: Array, labels: Array) -> Iterator[str]:
    """Yield the rows of a Markdown table: cosine, and relative length of the gradient.

    Args:
      student: logits [examples, classes].
      teacher: the same.
      labels: int [examples].
    """
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(labels))[: 3 * len(labels) // 10]
    noisy = teacher.at[wrong].set(teacher[np.roll(wrong, 1)])
    regimes = {
        "as trained": (student, teacher),
        "both 4 times as sharp": (4 * student, 4 * teacher),
        "student of random weights' scale": (0.05 * student, teacher),
        "teacher wrong for 30 %": (student, noisy),
        "teacher wrong for 30 %, both sharp": (4 * student, 4 * noisy),
    }
    differing = np.flatnonzero(jnp.argmax(student, -1) != jnp.argmax(teacher, -1))
    differing = differing[: len(differing) // BATCH * BATCH]
    for name, (own, other) in regimes.items():
        yield regime(name, own, other, labels)
    if len(differing):
        name = f"{len(differing)} examples of different predictions"
        rows = (student[differing], teacher[differing], labels[differing])
        yield regime(name, *rows)
        yield regime(f"{name}, both sharp", 4 * rows[0], 4 * rows[1], rows[2])


def regime(name: str, own: Array, other: Array, labels: Array) -> str:
    """Return one row: the mean overlap of the distributions, and each divergence's gradient."""
    p, q = (jax.nn.softmax(z / TEMPERATURE) for z in (own, other))
    overlap = float(jnp.mean(jnp.sum(jnp.minimum(p, q), axis=-1)))
    truth = jax.grad(lambda z: jnp.mean(losses.cross_entropy(z, labels)))(own)
    cells = []
    for divergence in DIVERGENCES:
        gradient = _gradient(divergence, own, other)
        cosine = jnp.vdot(gradient, truth) / (norm(gradient) * norm(truth))
        cells.append(f"{float(cosine):.2f} ({float(norm(gradient) / norm(truth)):.2g})")
    return f"| {name} | {overlap:.2f} | {' | '.join(cells)} |"


@partial(jax.jit, static_argnames="divergence")
def _gradient(divergence: str, own: Array, other: Array) -> Array:
    loss = partial(DIVERGENCES[divergence], temperature=TEMPERATURE)
    return jax.grad(lambda z: jnp.mean(loss(z, other)))(own)


def norm(x: Array) -> Array:
    """Return the length of an array as one vector."""
    return jnp.linalg.norm(x.reshape(-1))


def _forward(model: Model, variables: Variables, batch: Mapping[str, Any]) -> Outputs:
    return model.apply(variables, batch, train=False)[0]


class Networks:
    """Outputs of the networks of a run on examples of one split."""

    def __init__(self, run: Experiment, results: RunResults, split: str, examples: int) -> None:
        """Read the first examples of a split."""
        self.results, self.batches, count = results, [], 0
        self.read: dict[str, Any] = {}  # the networks of the last variant
        self.forward: dict[tuple[str, str], Callable] = {}
        for batch in run.source.evals[split]():
            self.batches.append(run.prepare_eval(batch))
            count += int(batch["mask"].sum())
            if count >= examples:
                break
        self.examples = min(count, examples)
        labels = np.concatenate([batch["label"] for batch in self.batches])
        self.labels = jnp.asarray(labels[: self.examples])

    def outputs(self, variant: Variant, role: str, member: int) -> Outputs:
        """Return logits and features of a role."""
        if variant.name not in self.read:
            self.read = {variant.name: self.results.networks(variant)}
        variables = jax.tree.map(lambda x: x[member], self.read[variant.name][role])
        if (variant.name, role) not in self.forward:
            model = variant.players[role].model
            self.forward[variant.name, role] = jax.jit(partial(_forward, model))
        forward = self.forward[variant.name, role]
        parts = [forward(variables, batch) for batch in self.batches]
        joined = jax.tree.map(lambda *x: jnp.concatenate(x)[: self.examples], *parts)
        return Outputs(joined.logits, joined.features)


def norms(networks: Networks, variants: Mapping[str, Variant]) -> Iterator[str]:
    """Yield a row for each variant whose student is as wide as the teacher at its last layer."""
    for name, variant in variants.items():
        if "wide" not in variant.config.roles["student"].adapters:
            continue
        rows = []
        for member in range(len(variant.members)):
            student, teacher = (
                networks.outputs(variant, r, member) for r in ("student", "teacher")
            )
            own, peer = student.features["wide"], teacher.features["pooled"]
            one_hot = jax.nn.one_hot(networks.labels, teacher.logits.shape[-1])
            means = (one_hot.T @ peer) / jnp.maximum(one_hot.sum(0), 1)[:, None]
            towards = means[networks.labels]
            lengths = jnp.linalg.norm(own, axis=-1)
            cosine = jnp.sum(own * towards, -1) / (lengths * jnp.linalg.norm(towards, axis=-1))
            ratio = lengths / jnp.linalg.norm(peer, axis=-1)
            rows.append([float(jnp.mean(ratio)), float(jnp.mean(cosine))])
        mean = np.mean(rows, axis=0)
        yield f"| {name} | {mean[0]:.2f} | {mean[1]:.3f} |"


def entropies(lines: list[dict], names: list[str]) -> Iterator[str]:
    """Yield a row for each variant: entropy of teacher - student at each validation, in nats."""
    for name in names:
        rows = [x for x in lines if x["variant"] == name and x["split"] == "validation"]
        rows = [x for x in rows if "student/entropy" in x and "teacher/entropy" in x]
        steps = sorted({row["step"] for row in rows})
        cells = []
        for step in steps:
            gaps = [x["teacher/entropy"] - x["student/entropy"] for x in rows if x["step"] == step]
            cells.append(f"{np.mean(gaps):+.3f}")
        if cells:
            yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workdir")
    parser.add_argument("--examples", type=int, default=2048, help="of the test split")
    args = parser.parse_args()
    workdir = files.as_path(args.workdir)
    run = build(read_config(workdir))
    results = load_results(run, workdir, print)
    variants = {v.name: v for v in run.variants if v.name in results.outcomes}
    networks = Networks(run, results, "test", args.examples)
    first = next(iter(variants.values()))
    student, teacher = (networks.outputs(first, role, 0).logits for role in ("student", "teacher"))
    print(f"\n| regime | overlap | {' | '.join(DIVERGENCES)} |")
    print("|---|---:|" + "---:|" * len(DIVERGENCES))
    print(*directions(student, teacher, networks.labels), sep="\n")
    print("\n| row | length / teacher's | cosine to the class mean |\n|---|---:|---:|")
    print(*norms(networks, variants), sep="\n")
    print("\n| row | entropy of teacher - student at each validation |\n|---|---|")
    lines = [json.loads(line) for line in files.read_text(workdir / "metrics.jsonl").splitlines()]
    print(*entropies(lines, [name for name in ONLINE if name in variants]), sep="\n")


if __name__ == "__main__":
    main()
