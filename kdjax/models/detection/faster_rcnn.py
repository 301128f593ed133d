"""Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144) as a `kdjax.types.Model`.

A batch with "box" is for training: the rows of the outputs are regions sampled around its boxes. A
batch without "box" is for detection, so evaluation cannot use the true boxes.

    "image" [batch, height, width, channel], sides multiples of 32; "size" [batch, 2], the height
    and width of the image inside its padding (default: all of it); "box" [batch, m, 4] in pixels,
    "box_label" int [batch, m], "box_mask" and "crowd" [batch, m], "draw" uint32 [batch] (the seed
    of each image's sampled regions)

A batch may have "region", "region_label", "region_mask" and "region_target", taken from the outputs
of another detector. Then the box head classifies these regions, and two players have equal rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.errors import UserError, check_entries
from kdjax.models.detection.backbones import (
    STRIDES,
    frozen_parts,
    make_backbone,
    merge,
    split_frozen,
)
from kdjax.models.detection.boxes import RATIOS, anchors
from kdjax.models.detection.fpn import BoxHead, Detector, ProposalHead, Pyramid
from kdjax.models.detection.matching import GroundTruth
from kdjax.models.detection.proposals import Limits, anchor_rows, detect, propose, region_rows
from kdjax.models.detection.roi_align import CANONICAL, levels_of, roi_align
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

# entries that two players may share
REGION_KEYS = ("region", "region_label", "region_mask", "region_target")
BINS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """Options of `faster_rcnn`."""

    num_classes: int  # background included, which is the last
    backbone: str = "ResNet18"  # or "ResNet10", "ResNet34", "ResNet50", "ResNet101", "MobileNetV2"
    backbone_options: Any = None  # its {"width": ...}
    # the backbone's batch norm is not trained, as usual with ImageNet weights; its scale and shift
    # are in the model's stats
    frozen_norm: bool = False
    frozen_stages: int = 0  # first stages that are not trained, also in the stats; 2: stem, stage 1
    pyramid_width: int = 256  # channels of the levels
    box_width: int = 1024  # of the box head's feature
    anchor_sizes: Any = (32.0, 64.0, 128.0, 256.0, 512.0)  # in pixels, one for each level
    ratios: Any = RATIOS  # of anchors, height over width
    canonical: float = CANONICAL  # size in pixels of regions read from the level of stride 16
    limits: Any = None  # fields of `proposals.Limits` that differ from the defaults
    dtype: Any = None  # of the computation
    axis_name: str | None = None  # pmap axis over which batch norm is taken


class _Plan(NamedTuple):
    """Arguments that the functions of a detector share."""

    network: Detector
    options: DetectorOptions
    limits: Limits
    frozen: Callable[[tuple[str, ...]], bool]


def faster_rcnn(options: DetectorOptions) -> Model:
    """Make a two-stage detector.

    Returns:
      A Model. For a training batch: logits [rows, classes] with rows = batch * regions, "pooled"
      [rows, box_width], "row_label" and "row_mask" [rows], "box_delta" and "box_target" [rows, 4];
      of the proposal network "anchor_logits", "anchor_label", "anchor_mask" [anchor rows],
      "anchor_delta", "anchor_target" [anchor rows, 4]; and REGION_KEYS [batch, regions, ...].
      For a detection batch: logits and "pooled" of all proposals, and "detections" [batch,
      detections, 7]: left, top, right, bottom in pixels, score, class, 1 if it is real.

    Raises:
      UserError: an option with an invalid value.
    """
    limits, dtype = _limits(options.limits or {}), options.dtype
    if len(options.anchor_sizes) != len(STRIDES):
        raise UserError(
            f"anchor_sizes is {tuple(options.anchor_sizes)}: give {len(STRIDES)}, one per level of "
            f"strides {STRIDES}"
        )
    if options.num_classes < 2 or options.pyramid_width < 1 or options.box_width < 1:
        raise UserError(
            "a detector needs 2 classes (background is one) and widths of at least 1, not "
            f"num_classes {options.num_classes}, pyramid_width {options.pyramid_width}, "
            f"box_width {options.box_width}"
        )
    network = Detector(
        make_backbone(
            options.backbone,
            options.backbone_options or {},
            dtype=dtype,
            axis_name=options.axis_name,
        ),
        Pyramid(options.pyramid_width, dtype),
        ProposalHead(len(options.ratios), dtype),
        BoxHead(options.num_classes, options.box_width, dtype),
        BINS,
        options.frozen_norm,
    )
    frozen = frozen_parts(options.backbone, norm=options.frozen_norm, stages=options.frozen_stages)
    plan = _Plan(network, options, limits, frozen)
    return Model(functools.partial(_init, plan), functools.partial(_apply, plan))


def _limits(changes: Mapping[str, Any]) -> Limits:
    for name, value in changes.items():
        if name not in Limits._fields:
            raise UserError(f"limits.{name}: no such limit; there are {', '.join(Limits._fields)}")
        if not value > 0:
            raise UserError(f"limits.{name} is {value}: use a number above 0")
    return Limits()._replace(**changes)


def _init(plan: _Plan, key: Array, batch: Batch) -> Variables:
    zeros = jnp.zeros((1, *_image(batch).shape[1:]), jnp.float32)
    stats = dict(plan.network.init(key, zeros))
    trained, frozen = split_frozen(stats.pop("params"), plan.frozen)
    return Variables(trained, {**stats, "frozen": frozen} if frozen else stats)


def _apply(
    plan: _Plan, variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
) -> tuple[Outputs, PyTree]:
    del key  # regions depend on the batch's "draw", equal on any number of devices
    image, stats = _image(batch), dict(variables.stats)
    tree = {"params": merge(variables.params, stats.pop("frozen", {})), **stats}
    if not (train and stats) or plan.network.frozen_norm:
        levels: Any = plan.network.apply(tree, image, train, method="levels")
        return _outputs(plan, tree, batch, levels), variables.stats
    levels, updated = plan.network.apply(tree, image, train, method="levels", mutable=list(stats))
    return _outputs(plan, tree, batch, levels), {**variables.stats, **updated}


def _image(batch: Batch) -> Array:
    check_entries("a detector", ("image",), batch)
    image = jnp.asarray(batch["image"], jnp.float32)
    if image.ndim != 4 or image.shape[1] % 32 or image.shape[2] % 32:
        raise UserError(
            "a detector takes images [batch, height, width, channel] with sides that are "
            f"multiples of 32, not {image.shape}"
        )
    return image


def _outputs(plan: _Plan, tree: PyTree, batch: Batch, levels: tuple[Array, ...]) -> Outputs:
    count, height, width, _ = batch["image"].shape
    full_size = jnp.broadcast_to(jnp.asarray([height, width], jnp.float32), (count, 2))
    size = jnp.asarray(batch.get("size", full_size), jnp.float32)
    level_anchors = _anchors(plan, levels)
    dense: Any = plan.network.apply(tree, levels, method="propose")
    logits, deltas = dense

    def propose_all() -> tuple[Array, Array]:
        return jax.vmap(lambda z, d, s: propose(z, d, level_anchors, s, plan.limits))(
            logits, deltas, size
        )

    if "box" not in batch and "region" not in batch:
        return _detections(plan, tree, levels, *propose_all(), size)
    features: dict[str, Array] = {}
    shared = {name: batch[name] for name in REGION_KEYS if name in batch}
    if "box" in batch:
        check_entries("a detector in training", ("box_label", "box_mask", "crowd", "draw"), batch)
        real, crowd = batch["box_mask"] > 0, batch["crowd"] > 0
        truth = GroundTruth(batch["box"], batch["box_label"], real, crowd, size)
        keys = jax.vmap(lambda n: jax.random.split(jax.random.key(n)))(batch["draw"])
        all_anchors = jnp.concatenate(level_anchors)
        features = jax.vmap(lambda z, d, t, k: anchor_rows(z, d, all_anchors, t, k, plan.limits))(
            logits, deltas, truth, keys[:, 0]
        )
        if not shared:
            background = plan.options.num_classes - 1
            shared = jax.vmap(lambda b, r, t, k: region_rows(b, r, t, k, background, plan.limits))(
                *propose_all(), truth, keys[:, 1]
            )
    check_entries("a detector in training", REGION_KEYS, shared)
    return _rows(plan, tree, levels, batch, shared, features)


def _rows(
    plan: _Plan,
    tree: PyTree,
    levels: tuple[Array, ...],
    batch: Batch,
    shared: Mapping[str, Array],
    features: Mapping[str, Array],
) -> Outputs:
    """Compute the outputs of regions with known classes; rows of all images are concatenated."""
    count = batch["image"].shape[0]
    image_mask = batch.get("mask", jnp.ones(count, jnp.float32))[:, None]
    masked = {name: features[name] * image_mask for name in features if name.endswith("_mask")}
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in {**features, **masked}.items()}
    logits, deltas, pooled = _classify(plan, tree, levels, shared["region"])
    label = shared["region_label"].reshape(-1)
    # the deltas of a background row are never used
    index = jnp.minimum(label, plan.options.num_classes - 2)[:, None, None]
    return Outputs(
        logits,
        {
            **flat,
            **shared,
            "pooled": pooled,
            "row_label": label,
            "row_mask": (shared["region_mask"] * image_mask).reshape(-1),
            "box_delta": jnp.take_along_axis(deltas, index, axis=1)[:, 0],
            "box_target": shared["region_target"].reshape(-1, 4),
        },
    )


def _detections(
    plan: _Plan,
    tree: PyTree,
    levels: tuple[Array, ...],
    regions: Array,
    real: Array,
    size: Array,
) -> Outputs:
    logits, deltas, pooled = _classify(plan, tree, levels, regions)
    image_logits, image_deltas = (
        x.reshape(*regions.shape[:2], *x.shape[1:]) for x in (logits, deltas)
    )
    detections = jax.vmap(lambda z, d, b, r, s: detect(z, d, b, r, s, plan.limits))(
        image_logits, image_deltas, regions, real, size
    )
    return Outputs(logits, {"pooled": pooled, "detections": detections})


def _classify(
    plan: _Plan, tree: PyTree, levels: tuple[Array, ...], regions: Array
) -> tuple[Array, Array, Array]:
    """Apply the box head to regions [batch, n, 4] read from all levels but the coarsest."""
    fine, strides = levels[:-1], STRIDES[:-1]
    level = levels_of(regions, strides, canonical=plan.options.canonical)
    bins = jax.vmap(lambda f, b, n: roi_align(f, b, n, strides=strides, bins=BINS))(
        fine, regions, level
    )
    outputs: Any = plan.network.apply(tree, bins.reshape(-1, *bins.shape[2:]), method="classify")
    return outputs


def _anchors(plan: _Plan, levels: tuple[Array, ...]) -> tuple[Array, ...]:
    sizes, ratios = plan.options.anchor_sizes, tuple(plan.options.ratios)
    return tuple(
        jnp.asarray(anchors(*level.shape[1:3], stride=stride, size=float(size), ratios=ratios))
        for level, stride, size in zip(levels, STRIDES, sizes, strict=True)
    )
