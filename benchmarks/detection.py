"""Where a training step of a detector spends its time, and what its regions cost.

    python benchmarks/detection.py [--side=320] [--batch=8] [--width=64] [--repeats=5]

First the parts of one step of a Faster R-CNN with a ResNet-18, forward and backward: backbone with
pyramid, the proposal head and its proposals, RoIAlign with the box head, and the whole with its
losses; shares are of the whole. Then RoIAlign (with its gradient) and non-maximum suppression
alone, for numbers of regions that double: both should take about twice as long each time.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models, terms
from kdjax.methods import Player, co_train, player_hparams
from kdjax.models.roi_align import levels_of, roi_align
from kdjax.models.suppression import suppress
from kdjax.types import Variables

CLASSES, BOXES = 81, 20
STRIDES = (4, 8, 16, 32)


def seconds(f, *args, repeats: int) -> float:
    """The least of several calls, after one that compiles."""
    jax.block_until_ready(f(*args))
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(f(*args))
        found.append(time.perf_counter() - started)
    return min(found)


def batch_of(side: int, count: int) -> dict:
    """Noise with boxes of all sizes."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, side * 0.7, (count, BOXES, 2))
    size = np.exp(rng.uniform(np.log(8), np.log(side * 0.3), (count, BOXES, 2)))
    return {
        "image": jnp.array(rng.normal(size=(count, side, side, 3)), jnp.float32),
        "size": jnp.full((count, 2), side, jnp.float32),
        "box": jnp.array(np.concatenate([corner, corner + size], -1), jnp.float32),
        "box_label": jnp.array(rng.integers(0, CLASSES - 1, (count, BOXES)), jnp.int32),
        "box_mask": jnp.ones((count, BOXES), jnp.float32),
        "crowd": jnp.zeros((count, BOXES), jnp.float32),
        "draw": jnp.arange(count, dtype=jnp.uint32),
        "label": jnp.zeros(count, jnp.int32),
        "mask": jnp.ones(count, jnp.float32),
    }


def split(side: int, count: int, width: int, repeats: int) -> None:
    """Print the parts of a step."""
    backbone = models.build("ResNet18", num_classes=1, stem="imagenet", width=width)
    model = models.build("faster_rcnn", num_classes=CLASSES, backbone_options={"width": width})
    batch = batch_of(side, count)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    classifier = jax.jit(backbone.init)(jax.random.key(0), batch)

    def backbone_alone(params):
        outputs, _ = backbone.apply(Variables(params, classifier.stats), batch, train=True)
        return sum(jnp.sum(outputs.features[f"stage{n}"] ** 2) for n in (1, 2, 3, 4))

    def detector(names):
        def value(params):
            outputs, _ = model.apply(Variables(params, variables.stats), batch, train=True)
            found = {"logits": outputs.logits, **outputs.features}
            return sum(jnp.sum(found[name] ** 2) for name in names)

        return value

    parts = {
        "ce": terms.cross_entropy(),
        "box_regression": terms.box_regression(),
        "objectness": terms.objectness(),
        "anchor_regression": terms.anchor_regression(),
    }
    player = Player(model, {name: terms.make_term(term) for name, term in parts.items()})
    method = co_train({"student": player})
    hparams = {"student": player_hparams(player, learning_rate=0.1)}

    def whole(params):
        by_role = ({"student": params}, {"student": variables.stats})
        return method.loss(*by_role, batch, hparams, jax.random.key(0))[0]

    time_of = lambda f, p: seconds(jax.jit(jax.grad(f)), p, repeats=repeats)  # noqa: E731
    total = time_of(whole, variables.params)
    print(f"whole step, {count} x {side} px: {total:.3f} s, {count / total:.1f} images/s")
    # each line holds those above: the backbone is below every head
    for name, taken in (
        ("backbone", time_of(backbone_alone, classifier.params)),
        ("with pyramid and proposal head", time_of(detector(["anchor_logits"]), variables.params)),
        ("with proposals, RoIAlign, box head", time_of(detector(["logits"]), variables.params)),
    ):
        print(f"{name:>36}: {taken:.3f} s, {100 * taken / total:.0f} % of the whole")


def scaling(side: int, count: int, repeats: int) -> None:
    """Print RoIAlign and suppression for numbers of regions that double."""
    rng = np.random.default_rng(0)
    maps = tuple(
        jnp.array(rng.normal(size=(count, side // s, side // s, 256)), jnp.float32) for s in STRIDES
    )
    print("regions an image: RoIAlign forward, with gradient, suppression (100 kept), seconds")
    for regions in (64, 128, 256, 512):
        corner = rng.uniform(0, side * 0.7, (count, regions, 2))
        size = np.exp(rng.uniform(np.log(8), np.log(side * 0.3), (count, regions, 2)))
        boxes = jnp.array(np.concatenate([corner, corner + size], -1), jnp.float32)
        read = jax.vmap(lambda f, b: roi_align(f, b, levels_of(b, STRIDES), strides=STRIDES))
        forward = seconds(jax.jit(read), maps, boxes, repeats=repeats)
        gradient = jax.jit(jax.grad(lambda f, b: jnp.sum(read(f, b) ** 2)))  # noqa: B023
        both = seconds(gradient, maps, boxes, repeats=repeats)
        many = jnp.tile(boxes, (1, 8, 1)) + jnp.array(rng.normal(size=(count, 8 * regions, 4)))
        scores = jnp.array(rng.uniform(size=many.shape[:2]))
        groups = jnp.zeros(scores.shape, jnp.int32)
        one = lambda b, s, g: suppress(b, s, g, size=100, threshold=0.5)  # noqa: E731
        kept = seconds(jax.jit(jax.vmap(one)), many, scores, groups, repeats=repeats)
        print(f"{regions:>6}: {forward:.3f}, {both:.3f}, {kept:.3f} (of {8 * regions})")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("side", 320), ("batch", 8), ("width", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}")
    split(args.side, args.batch, args.width, args.repeats)
    scaling(args.side, args.batch, args.repeats)


if __name__ == "__main__":
    main()
