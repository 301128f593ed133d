"""Detection: pictures with boxes as a `Source`; `augment_boxes` is what follows in the step.

A picture is resized so that its longer side is the input's, its top left corner stays, and the
rest is padding. Batches hold "image" uint8 [batch, side, side, 3], "size" float32 [batch, 2]
(height and width inside the padding), "box" [batch, m, 4] in pixels of the input, "box_label",
"box_mask", "crowd" [batch, m], and of every batch "label" (how many boxes), "id", "mask".
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data.augment.boxes import TASK
from kdjax.data.detection.coco import Photo, Photos, open_photo, read_coco
from kdjax.data.images.in_memory import ON_DEVICE_LIMIT, channel_moments
from kdjax.data.images.streaming import Block, train_batches
from kdjax.data.splits import Options, batch_rows, plan
from kdjax.types import EvalBatches, Source, Spec, TrainBatches, UserError

__all__ = ["DetectionOptions", "DetectionSet", "read_detection", "resized"]

BACKGROUND = "background"
_MOMENTS_SAMPLE = 256  # pictures behind mean and std
_NAMES = ("image", "size", "box", "box_label", "box_mask", "crowd", "label")


class DetectionOptions(NamedTuple):
    """What `read_detection` takes.

    `image_size`: of the longer side, a multiple of 32. `max_boxes`: a picture, in training; the
    smallest are left out, with a warning. `unreadable`: "refuse" or "skip" pictures that cannot be
    decoded. `judge_train`: training pictures are judged too, as the split "test_train", whenever
    validation is and at the end.
    """

    batch_size: int
    eval_batch_size: int = 8
    path: str | None = None
    image_size: int | None = None
    max_boxes: int = 100
    unreadable: str = "refuse"
    judge_train: bool = False
    validation: float | int = 0.1
    split_seed: int = 0
    limit: int | None = None
    on_device: bool | str = "auto"
    workers: int = 0


class DetectionSet(NamedTuple):
    """A source, and by split the pictures behind it in the order of "id": what AP is measured on.

    `open(photo)` returns the picture as stored, for drawings.
    """

    source: Source
    photos: Mapping[str, Sequence[Photo]]
    open: Callable[[Photo], np.ndarray]


def read_detection(options: DetectionOptions) -> DetectionSet:
    """Return a set in COCO's layout; "validation" is cut from its train split, "test" is its val.

    The last class is the background. Pictures without boxes stay: they teach what is background.

    Raises:
        UserError: one line naming the key or file and what would be right.
    """
    side = options.image_size or 0
    if side < 32 or side % 32:
        raise UserError(f"data.image_size is {options.image_size}; set a multiple of 32, 320 say")
    if options.max_boxes < 1:
        raise UserError(f"data.max_boxes is {options.max_boxes}; it must be >= 1")
    if options.unreadable not in ("refuse", "skip"):
        raise UserError(f"data.unreadable is {options.unreadable!r}; use 'refuse' or 'skip'")
    found = _readable(read_coco(options.path), options)
    if not found.train or not found.val:
        raise UserError(f"{found.where}: the train or the val split holds no pictures")
    rows = plan(
        np.zeros(len(found.train), np.int32),
        found.where,
        Options(
            options.batch_size,
            options.eval_batch_size,
            options.validation,
            None,
            options.split_seed,
            limit=options.limit,
        ),
        has_test=True,
        has_validation=False,
    )
    photos: dict[str, Sequence[Photo]] = {"train": [found.train[row] for row in rows.train]}
    if rows.validation is not None:
        photos["validation"] = [found.train[row] for row in rows.validation]
    photos["test"] = found.val
    if options.judge_train:
        photos["test_train"] = photos["train"]
    if not any(len(photo.box) for photo in photos["train"]):
        raise UserError(f"{found.where}: no picture of the training split has a box")
    _warn_crowded(found.where, photos["train"], options.max_boxes)
    get = {split: partial(_example, found.path, rows, options) for split, rows in photos.items()}
    return DetectionSet(
        _source(found, photos, get, options), photos, partial(open_photo, found.path)
    )


def _readable(found: Photos, options: DetectionOptions) -> Photos:
    """Open every picture once, if those that cannot be decoded are to be skipped."""
    if options.unreadable == "refuse":
        return found
    kept, lost = {}, []
    for split in ("train", "val"):
        kept[split] = []
        for photo in getattr(found, split):
            try:
                open_photo(found.path, photo)
                kept[split].append(photo)
            except UserError:
                lost.append(photo.file)
    if lost:
        warnings.warn(
            f"{found.where}: {len(lost)} unreadable pictures were skipped: {', '.join(lost[:5])}",
            stacklevel=3,
        )
    return found._replace(train=tuple(kept["train"]), val=tuple(kept["val"]))


def _warn_crowded(where: str, photos: Sequence[Photo], limit: int) -> None:
    over = [len(photo.box) - limit for photo in photos if len(photo.box) > limit]
    if over:
        warnings.warn(
            f"{where}: {sum(over)} boxes of {len(over)} training pictures are more than "
            f"data.max_boxes = {limit} and were left out, the smallest first",
            stacklevel=3,
        )


def resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side becomes `side`."""
    height, width = (max(1, round(x * side / max(size))) for x in size)
    return height, width


def _example(
    path: str, photos: Sequence[Photo], options: DetectionOptions, row: int
) -> dict[str, Any]:
    """Return picture number `row` of a split, resized and padded."""
    photo, side, limit = photos[row], options.image_size or 0, options.max_boxes
    height, width = resized(photo.size, side)
    picture = Image.fromarray(open_photo(path, photo))
    image = np.zeros((side, side, 3), np.uint8)
    image[:height, :width] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    order = np.argsort(-photo.area, kind="stable")[:limit]
    order, count = np.sort(order), min(len(photo.box), limit)
    scale = np.array([width / photo.size[1], height / photo.size[0]] * 2, np.float32)
    box, label, crowd = np.zeros((limit, 4), np.float32), np.zeros(limit, np.int32), np.zeros(limit)
    box[:count] = photo.box[order] * scale
    label[:count], crowd[:count] = photo.label[order], photo.crowd[order]
    return {
        "image": image,
        "size": np.array([height, width], np.float32),
        "box": box,
        "box_label": label,
        "box_mask": (np.arange(limit) < count).astype(np.float32),
        "crowd": crowd.astype(np.float32),
        "label": np.int32(count),
        "id": np.int32(row),
        "mask": np.float32(1),
    }


def _source(
    found: Photos,
    photos: Mapping[str, Sequence[Photo]],
    get: Mapping[str, Callable[[int], dict[str, Any]]],
    options: DetectionOptions,
) -> Source:
    size = {split: len(rows) for split, rows in photos.items()}
    sample = np.unique(np.linspace(0, size["train"] - 1, _MOMENTS_SAMPLE).astype(int))
    shown = [_inside(get["train"](int(row))) for row in sample]
    mean, std = channel_moments(np.concatenate(shown)[None, :, None], 255.0)
    example = get["train"](0)
    whole = sum(size.values()) * sum(np.asarray(example[name]).nbytes for name in _NAMES)
    small = whole <= ON_DEVICE_LIMIT if options.on_device == "auto" else bool(options.on_device)
    names = (*found.class_names, BACKGROUND)
    spec = Spec(
        example["image"].shape,
        len(names),
        names,
        mean,
        std,
        255.0,
        inputs={
            name: (np.shape(example[name]), str(np.asarray(example[name]).dtype))
            for name in _NAMES
            if name != "label"
        },
        task=TASK,
    )
    arrays = None
    if small:
        decoded = {
            split: _stacked([get[split](row) for row in range(n)]) for split, n in size.items()
        }
        get = {split: partial(_row, table) for split, table in decoded.items()}
        arrays = {name: decoded["train"][name] for name in _NAMES}

    def rows(index: int, count: int) -> Source:
        block = Block(index, count)
        evals = {
            split: _eval_batches(get[split], n, options.eval_batch_size, block)
            for split, n in size.items()
        }
        train = train_batches(
            get["train"], size["train"], options.batch_size, options.workers, block
        )
        return Source(spec=spec, size=size, train=train, evals=evals, rows=rows)

    source = rows(0, 1)
    if small:
        train = _ids(size["train"], options.batch_size)
        source = source._replace(train=train, arrays=arrays, rows=None)
    return source


def _inside(example: Mapping[str, Any]) -> np.ndarray:
    """The pixels of a picture without its padding, [n, 3]."""
    height, width = (int(x) for x in example["size"])
    return example["image"][:height, :width].reshape(-1, 3)


def _row(table: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in table.items()}


def _stacked(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}


def _ids(size: int, batch_size: int) -> TrainBatches:
    """Training batches of pictures that lie on the device."""

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        while True:
            yield {"id": batch_rows(size, batch_size, seed, step)}
            step += 1

    return batches


def _eval_batches(
    get: Callable[[int], dict[str, Any]], size: int, batch_size: int, block: Block
) -> EvalBatches:
    own = batch_size // block.among

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(block.number * own, size + block.number * own, batch_size):
            rows = np.arange(start, start + own)
            found = _stacked([get(int(row)) for row in np.minimum(rows, size - 1)])
            yield {**found, "mask": (rows < size).astype(np.float32)}

    return batches
