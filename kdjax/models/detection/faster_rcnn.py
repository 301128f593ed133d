"""Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144) as a `kdjax.types.Model`.

A batch with "box" is one to learn from: the rows of the outputs are regions drawn around its boxes.
A batch without is one to detect in. So evaluation cannot see what it should find.

    "image" [batch, height, width, channel], sides multiples of 32; "size" [batch, 2], the height
    and width of the picture inside (by default all of it); "box" [batch, m, 4] in pixels,
    "box_label" int [batch, m], "box_mask" and "crowd" [batch, m], "draw" uint32 [batch] (what the
    regions of each picture are drawn by)

A batch may bring "region", "region_label", "region_mask" and "region_target", taken from the
outputs of another detector: then the box head judges those, and two players have equal rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.models.detection.backbones import STRIDES, divide, frozen_parts, make_backbone, merge
from kdjax.models.detection.boxes import RATIOS, anchors
from kdjax.models.detection.fpn import BoxHead, Detector, ProposalHead, Pyramid
from kdjax.models.detection.proposals import (
    Limits,
    Scene,
    anchor_rows,
    detect,
    propose,
    region_rows,
)
from kdjax.models.detection.roi_align import CANONICAL, levels_of, roi_align
from kdjax.types import Array, Batch, Model, Outputs, PyTree, UserError, Variables

__all__ = ["SHARED", "faster_rcnn"]

SHARED = ("region", "region_label", "region_mask", "region_target")  # what two players may share
BINS = 7
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


class _Plan(NamedTuple):
    """What the functions of a detector have in common."""

    network: Detector
    num_classes: int
    limits: Limits
    anchor_sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    canonical: float
    frozen: Callable[[tuple[str, ...]], bool]


def faster_rcnn(
    *,
    num_classes: int,
    backbone: str = "ResNet18",
    backbone_options: Mapping[str, Any] | None = None,
    frozen_norm: bool = False,
    frozen_stages: int = 0,
    pyramid_width: int = 256,
    box_width: int = 1024,
    anchor_sizes: Sequence[float] = ANCHOR_SIZES,
    ratios: Sequence[float] = RATIOS,
    canonical: float = CANONICAL,
    limits: Mapping[str, Any] | None = None,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Make a two-stage detector.

    Outputs of a batch to learn from: `logits` [rows, classes] with rows = batch * regions, "pooled"
    [rows, box_width], "row_label" and "row_mask" [rows], "box_delta" and "box_target" [rows, 4];
    of the proposal network "anchor_logits", "anchor_label", "anchor_mask" [anchor rows],
    "anchor_delta", "anchor_target" [anchor rows, 4]; and SHARED [batch, regions, ...].
    Of one to detect in: `logits` and "pooled" of all proposals, and "detections" [batch,
    detections, 7]: left, top, right, bottom, score, class, 1 if it is real.

    Args:
      num_classes: background included, which is the last.
      backbone: "ResNet10", "ResNet18", "ResNet34", "ResNet50", "ResNet101" or "MobileNetV2".
      backbone_options: its `width`.
      frozen_norm: the backbone's batch norm keeps statistics, scale and shift (they are stats of
        the model, no params), as is usual with ImageNet weights.
      frozen_stages: so many first stages are stats too; the stem counts, so that 2 are the stem
        and stage 1.
      pyramid_width: channels of the levels.
      box_width: of the box head's feature.
      anchor_sizes: in pixels, one for each of the five levels.
      ratios: of anchors, height over width.
      canonical: size in pixels of regions that are read from the level of stride 16.
      limits: fields of `proposals.Limits` that differ.
      dtype: of the computation.
      axis_name: pmap axis over which batch norm is taken.

    Raises:
      UserError: an option with an impossible value.
    """
    chosen = _limits(limits or {})
    if len(anchor_sizes) != len(STRIDES):
        raise UserError(
            f"anchor_sizes is {tuple(anchor_sizes)}: give {len(STRIDES)}, one a level of strides "
            f"{STRIDES}"
        )
    if num_classes < 2 or pyramid_width < 1 or box_width < 1:
        raise UserError(
            "a detector needs 2 classes (background is one) and widths of at least 1, not "
            f"num_classes {num_classes}, pyramid_width {pyramid_width}, box_width {box_width}"
        )
    network = Detector(
        make_backbone(backbone, backbone_options or {}, dtype=dtype, axis_name=axis_name),
        Pyramid(pyramid_width, dtype),
        ProposalHead(len(ratios), dtype),
        BoxHead(num_classes, box_width, dtype),
        BINS,
        frozen_norm,
    )
    frozen = frozen_parts(backbone, norm=frozen_norm, stages=frozen_stages)
    sizes = tuple(float(size) for size in anchor_sizes)
    plan = _Plan(network, num_classes, chosen, sizes, tuple(ratios), canonical, frozen)
    return Model(_make_init(plan), _make_apply(plan))


def _limits(given: Mapping[str, Any]) -> Limits:
    for name, value in given.items():
        if name not in Limits._fields:
            raise UserError(f"limits.{name}: no such limit; there are {', '.join(Limits._fields)}")
        if not value > 0:
            raise UserError(f"limits.{name} is {value}: use a number above 0")
    return Limits(**given)


def _make_init(plan: _Plan) -> Callable[[Array, Batch], Variables]:
    def init(key: Array, batch: Batch) -> Variables:
        image = _image(batch)
        zeros = jnp.zeros((1, *image.shape[1:]), jnp.float32)
        found = dict(plan.network.init(key, zeros))
        trained, frozen = divide(found.pop("params"), plan.frozen)
        return Variables(trained, {**found, "frozen": frozen} if frozen else found)

    return init


def _make_apply(plan: _Plan) -> Any:
    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        del key  # regions are drawn by the batch's "draw", equal on any number of devices
        image = _image(batch)
        stats = dict(variables.stats)
        params = merge(variables.params, stats.pop("frozen", {}))
        tree = {"params": params, **stats}
        moves = train and bool(stats) and not plan.network.frozen_norm
        found: Any = plan.network.apply(
            tree, image, train, method="levels", mutable=list(stats) if moves else False
        )
        levels, moved = found if moves else (found, {})
        after = {**variables.stats, **moved} if moves else variables.stats
        return _outputs(plan, tree, batch, levels), after

    return apply


def _image(batch: Batch) -> Array:
    if "image" not in batch:
        raise UserError(f'a detector reads batch["image"], but the batch has {sorted(batch)}')
    image = jnp.asarray(batch["image"], jnp.float32)
    if image.ndim != 4 or image.shape[1] % 32 or image.shape[2] % 32:
        raise UserError(
            "a detector takes images [batch, height, width, channel] with sides that are "
            f"multiples of 32, not {image.shape}"
        )
    return image


def _outputs(plan: _Plan, tree: PyTree, batch: Batch, levels: tuple[Array, ...]) -> Outputs:
    count, height, width, _ = batch["image"].shape
    whole = jnp.broadcast_to(jnp.asarray([height, width], jnp.float32), (count, 2))
    size = jnp.asarray(batch.get("size", whole), jnp.float32)
    placed = _anchors(plan, levels)
    dense: Any = plan.network.apply(tree, levels, method="propose")
    logits, deltas = dense
    if "box" not in batch and "region" not in batch:
        return _detect(plan, tree, levels, placed, logits, deltas, size)
    features: dict[str, Array] = {}
    shared = {name: batch[name] for name in SHARED if name in batch}
    if "box" in batch:
        scene = Scene(
            batch["box"],
            batch["box_label"],
            batch["box_mask"] > 0,
            batch["crowd"] > 0,
            size,
        )
        draw = jax.vmap(lambda n: jax.random.split(jax.random.key(n)))(batch["draw"])
        everywhere = jnp.concatenate(placed)
        features = jax.vmap(lambda z, d, s, k: anchor_rows(z, d, everywhere, s, k, plan.limits))(
            logits, deltas, scene, draw[:, 0]
        )
        if not shared:
            boxes, real = jax.vmap(lambda z, d, s: propose(z, d, placed, s, plan.limits))(
                logits, deltas, size
            )
            background = plan.num_classes - 1
            shared = jax.vmap(lambda b, r, s, k: region_rows(b, r, s, k, background, plan.limits))(
                boxes, real, scene, draw[:, 1]
            )
    return _rows(plan, tree, levels, batch, shared, features)


def _rows(
    plan: _Plan,
    tree: PyTree,
    levels: tuple[Array, ...],
    batch: Batch,
    shared: Mapping[str, Array],
    features: Mapping[str, Array],
) -> Outputs:
    """What a detector says of regions whose classes are known; rows of pictures end to end."""
    count = batch["image"].shape[0]
    pictures = batch.get("mask", jnp.ones(count, jnp.float32))[:, None]
    masked = {name: features[name] * pictures for name in features if name.endswith("_mask")}
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in {**features, **masked}.items()}
    logits, deltas, pooled = _judge(plan, tree, levels, shared["region"])
    label = shared["region_label"].reshape(-1)
    own = jnp.minimum(label, plan.num_classes - 2)[:, None, None]  # of background: never looked at
    return Outputs(
        logits,
        {
            **flat,
            **shared,
            "pooled": pooled,
            "row_label": label,
            "row_mask": (shared["region_mask"] * pictures).reshape(-1),
            "box_delta": jnp.take_along_axis(deltas, own, axis=1)[:, 0],
            "box_target": shared["region_target"].reshape(-1, 4),
        },
    )


def _detect(
    plan: _Plan,
    tree: PyTree,
    levels: tuple[Array, ...],
    placed: tuple[Array, ...],
    logits: Array,
    deltas: Array,
    size: Array,
) -> Outputs:
    regions, real = jax.vmap(lambda z, d, s: propose(z, d, placed, s, plan.limits))(
        logits, deltas, size
    )
    z, boxes, pooled = _judge(plan, tree, levels, regions)
    per_image = lambda x: x.reshape(*regions.shape[:2], *x.shape[1:])  # noqa: E731
    found = jax.vmap(lambda a, b, c, d, e: detect(a, b, c, d, e, plan.limits))(
        per_image(z), per_image(boxes), regions, real, size
    )
    return Outputs(z, {"pooled": pooled, "detections": found})


def _judge(
    plan: _Plan, tree: PyTree, levels: tuple[Array, ...], regions: Array
) -> tuple[Array, Array, Array]:
    """The box head on regions [batch, n, 4] read from all levels but the coarsest."""
    fine, strides = levels[:-1], STRIDES[:-1]
    level = levels_of(regions, strides, canonical=plan.canonical)
    read = lambda f, b, n: roi_align(f, b, n, strides=strides, bins=BINS)  # noqa: E731
    bins = jax.vmap(read)(fine, regions, level)
    found: Any = plan.network.apply(tree, bins.reshape(-1, *bins.shape[2:]), method="judge")
    return found


def _anchors(plan: _Plan, levels: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(
        jnp.asarray(anchors(*level.shape[1:3], stride=stride, size=size, ratios=plan.ratios))
        for level, stride, size in zip(levels, STRIDES, plan.anchor_sizes, strict=True)
    )
