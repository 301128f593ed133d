"""Time of the parts of a detector's training step, and its growth with the number of regions.

    python benchmarks/detection.py [--side=320] [--batch=2] [--width=64] [--repeats=5]

The script first times one step of a Faster R-CNN with a ResNet-18 and the usual limits (1,000
proposals, 512 regions for each image). It prints images/s, the compile time, and the share of the
parts, each with its gradient: the backbone; with pyramid and proposal network; with proposals,
RoIAlign and box head; all with the losses. RoIAlign and the proposals' suppression are also timed
alone at the sizes of that step. Then both are timed while the number of regions doubles; the time
should about double too. Calls are interleaved; times are medians.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import medians

from kdjax import models
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.models.detection.nms import suppress
from kdjax.models.detection.proposals import Limits
from kdjax.models.detection.roi_align import levels_of, roi_align
from kdjax.types import Variables

CLASSES, BOXES = 81, 20
STRIDES = (4, 8, 16, 32)


def call(f: Callable, *args: Any) -> Callable[[], Any]:
    """Return a blocking call of the jitted and compiled `f`."""
    jitted = jax.jit(f)
    jax.block_until_ready(jitted(*args))
    return lambda: jax.block_until_ready(jitted(*args))


def batch_of(side: int, count: int) -> dict:
    """Return a batch of noise with boxes of all sizes."""
    rng = np.random.default_rng(0)
    return {
        "image": jnp.array(rng.normal(size=(count, side, side, 3)), jnp.float32),
        "size": jnp.full((count, 2), side, jnp.float32),
        "box": boxes_of(side, count, BOXES),
        "box_label": jnp.array(rng.integers(0, CLASSES - 1, (count, BOXES)), jnp.int32),
        "box_mask": jnp.ones((count, BOXES), jnp.float32),
        "crowd": jnp.zeros((count, BOXES), jnp.float32),
        "draw": jnp.arange(count, dtype=jnp.uint32),
        "label": jnp.zeros(count, jnp.int32),
        "mask": jnp.ones(count, jnp.float32),
    }


def losses_of(model: Any) -> Callable:
    """Return the loss of a detector trained alone, a function of (params, stats, batch)."""
    parts = {
        "ce": terms.cross_entropy(),
        "box_smooth_l1": terms.box_smooth_l1(),
        "binary_cross_entropy": terms.binary_cross_entropy(),
        "anchor_smooth_l1": terms.anchor_smooth_l1(),
    }
    player = Player(model, {name: terms.make_term(term) for name, term in parts.items()})
    method = co_train({"student": player})
    hparams = {"student": player_hparams(player, learning_rate=0.1)}

    def loss(params: Any, stats: Any, batch: dict) -> jax.Array:
        by_role = ({"student": params}, {"student": stats})
        return method.loss(*by_role, batch, hparams, jax.random.key(0))[0]

    return loss


def measure_parts(side: int, count: int, width: int, repeats: int) -> None:
    """Print the parts of a step."""
    backbone = models.build("ResNet18", num_classes=1, stem="imagenet", width=width)
    model = models.build("faster_rcnn", num_classes=CLASSES, backbone_options={"width": width})
    batch = batch_of(side, count)
    params, stats = jax.jit(model.init)(jax.random.key(0), batch)
    alone = jax.jit(backbone.init)(jax.random.key(0), batch)

    def stages(params: Any, stats: Any, batch: dict) -> jax.Array:
        outputs, _ = backbone.apply(Variables(params, stats), batch, train=True)
        return jnp.sum(
            jnp.stack([jnp.sum(outputs.features[f"stage{n}"] ** 2) for n in (1, 2, 3, 4)])
        )

    def loss_of(name: str) -> Callable:
        def value(params: Any, stats: Any, batch: dict) -> jax.Array:
            outputs, _ = model.apply(Variables(params, stats), batch, train=True)
            layers = {"logits": outputs.logits, **outputs.features}
            return jnp.sum(layers[name] ** 2)

        return value

    started = time.perf_counter()
    calls = {"whole": call(jax.grad(losses_of(model)), params, stats, batch)}
    print(f"compiled, with a first step, in {time.perf_counter() - started:.0f} s", flush=True)
    calls |= {
        "backbone": call(jax.grad(stages), *alone, batch),
        "with pyramid and proposal network": call(
            jax.grad(loss_of("anchor_logits")), params, stats, batch
        ),
        "with proposals, RoIAlign, box head": call(
            jax.grad(loss_of("logits")), params, stats, batch
        ),
    }
    limits = Limits()
    calls["RoIAlign alone"] = reading(side, count, limits.regions)
    count_before = sum(min(limits.before, 3 * (side // s) ** 2) for s in (*STRIDES, 64))
    calls["suppression alone"] = suppressing(side, count, count_before, limits.proposals)
    times = medians(calls, repeats)
    total = times.pop("whole")
    print(f"whole step, {count} x {side} px: {count / total:.2f} images/s")
    for name, seconds in times.items():  # each of the first three includes those above it
        print(f"{name:>36}: {100 * seconds / total:.0f} % of the step")


def boxes_of(side: int, count: int, regions: int) -> jax.Array:
    """Return boxes of all sizes [count, regions, 4]."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, side * 0.7, (count, regions, 2))
    size = np.exp(rng.uniform(np.log(8), np.log(side * 0.3), (count, regions, 2)))
    return jnp.array(np.concatenate([corner, corner + size], -1), jnp.float32)


def reading(side: int, count: int, regions: int) -> Callable[[], Any]:
    """Return a call of RoIAlign and its gradient on a pyramid of 256 channels."""
    rng = np.random.default_rng(0)
    maps = tuple(
        jnp.array(rng.normal(size=(count, side // s, side // s, 256)), jnp.float32) for s in STRIDES
    )
    boxes = boxes_of(side, count, regions)
    read = jax.vmap(lambda f, b: roi_align(f, b, levels_of(b, STRIDES), strides=STRIDES))
    return call(jax.grad(lambda f, b: jnp.sum(read(f, b) ** 2)), maps, boxes)


def suppressing(side: int, count: int, regions: int, size: int) -> Callable[[], Any]:
    """Return a call of suppression from `count` boxes to `size`."""
    boxes = boxes_of(side, count, regions)
    scores = jnp.array(np.random.default_rng(1).uniform(size=boxes.shape[:2]))
    groups = jnp.zeros(scores.shape, jnp.int32)
    one = lambda b, s, g: suppress(b, s, g, size=size, threshold=0.7)  # noqa: E731
    return call(jax.vmap(one), boxes, scores, groups)


def scaling(side: int, count: int, repeats: int) -> None:
    """Print the times of RoIAlign and suppression relative to the smallest number of regions."""
    numbers = (128, 256, 512, 1024)
    for name, calls in (
        ("RoIAlign, regions", {n: reading(side, count, n) for n in numbers}),
        (
            "suppression to 100, boxes",
            {8 * n: suppressing(side, count, 8 * n, 100) for n in numbers},
        ),
    ):
        times = medians({str(n): f for n, f in calls.items()}, repeats)
        first = next(iter(times.values()))
        print(f"{name}: " + ", ".join(f"{n} {seconds / first:.1f}" for n, seconds in times.items()))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, value in (("side", 320), ("batch", 2), ("width", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}")
    measure_parts(args.side, args.batch, args.width, args.repeats)
    scaling(args.side, args.batch, args.repeats)


if __name__ == "__main__":
    main()
