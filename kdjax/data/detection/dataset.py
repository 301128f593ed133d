"""Detection: pictures with boxes as a `Source`; `augment_boxes` prepares them in the step.

A picture is resized so that its longer side is the input's, is placed at the top left, and is
padded. Batches hold "image" uint8 [batch, side, side, 3], "size" float32 [batch, 2]
(height and width inside the padding), "box" [batch, m, 4] in pixels of the input, "box_label",
"box_mask", "crowd" [batch, m], "label" [batch] (the number of boxes), "id", "mask".
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data.augment.boxes import TASK
from kdjax.data.detection.coco import Photo, Photos, open_photo, photos_digest, read_coco
from kdjax.data.digest import digest
from kdjax.data.images.decode import check_readable, drop_unreadable
from kdjax.data.images.in_memory import channel_moments, fits_on_device, id_batches
from kdjax.data.images.streaming import Block, train_batches
from kdjax.data.options import BatchOptions, DetectionOptions, SplitOptions
from kdjax.data.splits import assign_rows, check_batch_sizes, plan
from kdjax.errors import UserError
from kdjax.types import EvalBatches, Source, Spec

BACKGROUND = "background"
_MOMENTS_SAMPLE = 256  # pictures from which mean and std are computed
_NAMES = ("image", "size", "box", "box_label", "box_mask", "crowd", "label")


class DetectionSet(NamedTuple):
    """A source, and the pictures of each split in the order of "id", for average precision.

    `open(photo)` returns the picture as stored, for drawings.
    """

    source: Source
    photos: Mapping[str, Sequence[Photo]]
    open: Callable[[Photo], np.ndarray]


def read_detection(
    options: DetectionOptions, batching: BatchOptions, splitting: SplitOptions
) -> DetectionSet:
    """Return a set in COCO's layout; "validation" is a part of its train split, "test" is its val.

    The last class is the background. Pictures without boxes are used as background.

    Raises:
        UserError: one line with the key or file and what would be right.
    """
    side = options.image_size or 0
    if side < 32 or side % 32:
        raise UserError(
            f"data.image_size is {options.image_size}; set a multiple of 32, such as 320"
        )
    if options.max_boxes < 1:
        raise UserError(f"data.max_boxes is {options.max_boxes}; it must be >= 1")
    if options.unreadable not in ("refuse", "skip"):
        raise UserError(f"data.unreadable is {options.unreadable!r}; use 'refuse' or 'skip'")
    coco = read_coco(options.path)
    if options.unreadable == "skip":
        coco = _without_unreadable(coco)
    if not coco.train or not coco.val:
        raise UserError(f"{coco.where}: the train or the val split holds no pictures")
    label = np.zeros(len(coco.train), np.int32)
    rows = plan(label, coco.where, splitting, has_test=True, has_validation=False)
    photos: dict[str, Sequence[Photo]] = {
        split: stored if chosen is None else [stored[row] for row in chosen]
        for split, (stored, chosen) in assign_rows(rows, coco.train, None, coco.val).items()
    }
    check_batch_sizes(batching, len(photos["train"]))
    if options.judge_train:
        photos["test_train"] = photos["train"]
    if not any(len(photo.box) for photo in photos["train"]):
        raise UserError(f"{coco.where}: no picture of the training split has a box")
    _warn_crowded(coco.where, photos["train"], options.max_boxes)
    fetch = {split: partial(_example, coco.path, rows, options) for split, rows in photos.items()}
    size = {split: len(rows) for split, rows in photos.items()}
    source = _source(fetch, size, (*coco.class_names, BACKGROUND), batching)
    source = source._replace(digest={**photos_digest(coco), **source.digest})
    if source.arrays is None:
        source = source._replace(verify=partial(_verify, coco))
    return DetectionSet(source, photos, partial(open_photo, coco.path))


def _without_unreadable(coco: Photos) -> Photos:
    """Drop the pictures that cannot be read, with a warning."""
    photos = {photo.file: photo for photo in (*coco.train, *coco.val)}
    dropped = drop_unreadable(lambda file: open_photo(coco.path, photos[file]), photos, coco.where)
    train, val = (
        tuple(photo for photo in split if photo.file not in dropped)
        for split in (coco.train, coco.val)
    )
    return coco._replace(train=train, val=val)


def _verify(coco: Photos) -> None:
    photos = (*coco.train, *coco.val)
    check_readable(lambda row: open_photo(coco.path, photos[row]), range(len(photos)))


def _warn_crowded(where: str, photos: Sequence[Photo], limit: int) -> None:
    excess = [len(photo.box) - limit for photo in photos if len(photo.box) > limit]
    if excess:
        warnings.warn(
            f"{where}: {sum(excess)} boxes of {len(excess)} training pictures are more than "
            f"data.max_boxes = {limit} and were dropped, the smallest first",
            stacklevel=3,
        )


def resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side becomes `side`."""
    height, width = (max(1, round(x * side / max(size))) for x in size)
    return height, width


def fit_picture(picture: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a picture whose longer side is `side`, padded to a square, and its height and width.

    Args:
        picture: uint8 [height, width, 3].
        side: that of the network's input.
    """
    height, width = resized((picture.shape[0], picture.shape[1]), side)
    smaller = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    image = np.zeros((side, side, 3), np.uint8)
    image[:height, :width] = np.asarray(smaller)
    return image, (height, width)


def _example(
    path: str, photos: Sequence[Photo], options: DetectionOptions, row: int
) -> dict[str, Any]:
    """Return picture number `row` of a split, resized and padded."""
    photo, side, limit = photos[row], options.image_size or 0, options.max_boxes
    image, (height, width) = fit_picture(open_photo(path, photo), side)
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
    fetch: Mapping[str, Callable[[int], dict[str, Any]]],
    size: Mapping[str, int],
    class_names: tuple[str, ...],
    batching: BatchOptions,
) -> Source:
    sample = np.unique(np.linspace(0, size["train"] - 1, _MOMENTS_SAMPLE).astype(int))
    pixels = [_inside(fetch["train"](int(row))) for row in sample]
    mean, std = channel_moments(np.concatenate(pixels)[:, None, None], 255.0)
    example = fetch["train"](0)
    fields = {name: np.asarray(example[name]) for name in _NAMES}
    spec = Spec(
        example["image"].shape,
        len(class_names),
        class_names,
        mean,
        std,
        255.0,
        inputs={n: (x.shape, str(x.dtype)) for n, x in fields.items() if n != "label"},
        task=TASK,
    )
    total_bytes = sum(size.values()) * sum(field.nbytes for field in fields.values())
    small = fits_on_device(batching.on_device, total_bytes)
    tables: dict[str, dict[str, np.ndarray]] = {}
    if small:
        tables = {
            split: _stacked([fetch[split](row) for row in range(n)]) for split, n in size.items()
        }
        fetch = {split: partial(_row, table) for split, table in tables.items()}

    def rows(index: int, count: int) -> Source:
        block = Block(index, count)
        evals = {
            split: _eval_batches(fetch[split], n, batching.eval_batch_size, block)
            for split, n in size.items()
        }
        train = train_batches(fetch["train"], size["train"], batching, block)
        return Source(spec=spec, size=size, train=train, evals=evals, rows=rows)

    source = rows(0, 1)
    if small:
        train = id_batches(size["train"], batching.batch_size)
        arrays = {name: tables["train"][name] for name in _NAMES}
        images = {f"{split} images": table["image"] for split, table in tables.items()}
        source = source._replace(train=train, arrays=arrays, rows=None, digest=digest(images))
    return source


def _inside(example: Mapping[str, Any]) -> np.ndarray:
    """Return the pixels of a picture without its padding, [n, 3]."""
    height, width = (int(x) for x in example["size"])
    return example["image"][:height, :width].reshape(-1, 3)


def _row(table: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in table.items()}


def _stacked(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}


def _eval_batches(
    fetch: Callable[[int], dict[str, Any]], size: int, batch_size: int, block: Block
) -> EvalBatches:
    block_size = batch_size // block.count
    first = block.index * block_size

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(first, size + first, batch_size):
            rows = np.arange(start, start + block_size)
            examples = _stacked([fetch(int(row)) for row in np.minimum(rows, size - 1)])
            yield {**examples, "mask": (rows < size).astype(np.float32)}

    return batches
