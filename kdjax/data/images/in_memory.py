"""In-memory image sets: what is refused, the statistics, the batches.

A reader returns an `ImageSet` of arrays that went through `check`; `build` turns it into a
`Source`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from kdjax.data.splits import Options, batch_rows, plan
from kdjax.types import EvalBatches, Source, Spec, TrainBatches, UserError

__all__ = ["ON_DEVICE_LIMIT", "ImageSet", "Pair", "build", "channel_moments", "check", "pad_batch"]

ON_DEVICE_LIMIT = 2**30  # bytes of raw training images that may live on the accelerator
_CHUNK = 2**22  # values converted to float64 at a time


class Pair(NamedTuple):
    """Raw images [n, height, width, channel] (uint8 or float32) and labels int32 [n]."""

    image: np.ndarray
    label: np.ndarray


class ImageSet(NamedTuple):
    """What a reader found: the splits that exist, and `where`, for errors.

    `scale` divides the stored pixels before the statistics (255 for uint8, 16 for the digits).
    """

    where: str
    train: Pair
    test: Pair | None
    validation: Pair | None
    num_classes: int
    class_names: tuple[str, ...]
    scale: float


def check(
    image: np.ndarray, label: np.ndarray, num_classes: int | None, where: str, split: str
) -> Pair:
    """Return images [n, height, width, channel] and int32 labels [n], or refuse them.

    Args:
        image: [n, height, width] or with a channel axis, uint8 or floating.
        label: integers [n] or [n, 1] in [0, num_classes).
        num_classes: the upper end; None leaves it open.
        where: the file or folder, as it should stand in an error.
        split: "train" or "test": the suffix of the keys x_ and y_ in errors.

    Raises:
        UserError: naming file, key and remedy.
    """
    x, y = f"x_{split}", f"y_{split}"
    if image.ndim not in (3, 4):
        raise UserError(
            f"{where}: {x} has shape {image.shape}; images are [n, height, width] or "
            "[n, height, width, channel]"
        )
    if image.size == 0:
        raise UserError(f"{where}: {x} is empty (shape {image.shape}); give at least one example")
    label = label[:, 0] if label.ndim == 2 and label.shape[1] == 1 else label
    if label.ndim != 1 or len(label) != len(image):
        raise UserError(
            f"{where}: {x} has {len(image)} images but {y} has shape {label.shape}; "
            "one label per image is needed"
        )
    _check_pixels(image, where, x)
    image = image[..., None] if image.ndim == 3 else image
    image = image if image.dtype == np.uint8 else np.asarray(image, np.float32)
    return Pair(image, _check_labels(label, num_classes, where, y))


def _check_pixels(image: np.ndarray, where: str, key: str) -> None:
    if image.dtype == np.uint8:
        return
    if not np.issubdtype(image.dtype, np.floating):
        raise UserError(f"{where}: {key} has dtype {image.dtype}; store uint8 or float32 pixels")
    rows = max(1, _CHUNK // image[0].size)
    for start in range(0, len(image), rows):
        part = image[start : start + rows].astype(np.float32)  # float64 may overflow to inf
        finite = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite.all():
            bad = start + int(np.argmin(finite))
            raise UserError(f"{where}: {key}[{bad}] holds NaN or inf; repair or drop such images")


def _check_labels(label: np.ndarray, num_classes: int | None, where: str, key: str) -> np.ndarray:
    if not np.issubdtype(label.dtype, np.integer):
        raise UserError(
            f"{where}: {key} has dtype {label.dtype}; labels are integers in [0, num_classes)"
        )
    end = np.iinfo(np.int32).max if num_classes is None else num_classes
    wrong = (label < 0) | (label >= end)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise UserError(
            f"{where}: {key}[{bad}] is {label[bad]}, out of range; labels are integers in "
            f"[0, {num_classes or 'num_classes'})"
        )
    return label.astype(np.int32)


def channel_moments(image: np.ndarray, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of image / scale, in float64 by chunks.

    A constant channel gets the deviation 1, which normalises it to exactly 0.
    """
    channels = image.shape[-1]
    rows = max(1, _CHUNK // image[0].size)
    starts = range(0, len(image), rows)
    count = image.size // channels

    def pixels(start: int) -> np.ndarray:
        return image[start : start + rows].reshape(-1, channels).astype(np.float64) / scale

    mean = sum((pixels(s).sum(0) for s in starts), np.zeros(channels)) / count
    var = sum((((pixels(s) - mean) ** 2).sum(0) for s in starts), np.zeros(channels)) / count
    std = np.sqrt(var)
    std = np.where(std > 1e-12, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def pad_batch(
    image: np.ndarray, label: np.ndarray, ids: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """Return an evaluation batch of `size` rows: the last example repeated, with mask 0.

    Repeating, instead of zeros, keeps every value in the range of the data, and whoever writes
    predictions by id writes the same one twice.
    """
    rows = np.minimum(np.arange(size), len(label) - 1)
    mask = (np.arange(size) < len(label)).astype(np.float32)
    return {"image": image[rows], "label": label[rows], "id": ids[rows], "mask": mask}


def build(found: ImageSet, options: Options) -> Source:
    """Split an in-memory set and return its `Source`.

    `arrays` is set when `options.on_device` says so or, for "auto", when the raw training images
    take at most 1 GiB.

    Raises:
        UserError: from `splits.plan`.
    """
    rows = plan(
        found.train.label,
        found.where,
        options,
        has_test=found.test is not None,
        has_validation=found.validation is not None,
    )
    train = _pick(found.train, rows.train)
    shipped = {"validation": found.validation, "test": found.test}
    cut = {"validation": rows.validation, "test": rows.test}
    splits = {"train": train}
    for name in ("validation", "test"):
        held, whole = cut[name], shipped[name]
        if held is not None:
            splits[name] = _pick(found.train, held)
        elif whole is not None:
            splits[name] = whole
    mean, std = channel_moments(train.image, found.scale)
    shape = tuple(int(size) for size in train.image.shape[1:])
    auto = options.on_device == "auto"
    small = train.image.nbytes <= ON_DEVICE_LIMIT if auto else bool(options.on_device)
    return Source(
        spec=Spec(shape, found.num_classes, found.class_names, mean, std, found.scale),
        size={name: len(pair.label) for name, pair in splits.items()},
        train=_train_batches(train, options.batch_size, ids_only=small),
        evals={name: _eval_batches(pair, options.eval_batch_size) for name, pair in splits.items()},
        arrays={"image": train.image, "label": train.label} if small else None,
    )


def _pick(pair: Pair, rows: np.ndarray) -> Pair:
    if len(rows) == len(pair.label):
        return pair  # ascending and complete: no need for a copy
    return Pair(pair.image[rows], pair.label[rows])


def _train_batches(train: Pair, batch_size: int, *, ids_only: bool) -> TrainBatches:
    ones = np.ones(batch_size, np.float32)

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        while True:
            ids = batch_rows(len(train.label), batch_size, seed, step)
            if ids_only:
                yield {"id": ids}
            else:
                image, label = train.image[ids], train.label[ids]
                yield {"image": image, "label": label, "id": ids, "mask": ones}
            step += 1

    return batches


def _eval_batches(pair: Pair, batch_size: int) -> EvalBatches:
    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(pair.label), batch_size):
            image = pair.image[start : start + batch_size]
            label = pair.label[start : start + batch_size]
            ids = np.arange(start, start + len(label), dtype=np.int32)
            yield pad_batch(image, label, ids, batch_size)

    return batches
