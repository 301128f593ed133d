"""In-memory image sets: checks, statistics, batches.

A reader returns an `ImageSet` of arrays that passed `check`; `build` makes a `Source` of it.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from kdjax.data.digest import digest
from kdjax.data.options import BatchOptions, SplitOptions
from kdjax.data.splits import assign_rows, batch_rows, check_batch_sizes, plan
from kdjax.errors import UserError
from kdjax.types import EvalBatches, Source, Spec, TrainBatches

ON_DEVICE_LIMIT = 2**30  # bytes of raw training images that may be stored on the accelerator
_CHUNK = 2**22  # values converted to float64 at a time


class Pair(NamedTuple):
    """Raw images [n, height, width, channel] (uint8 or float32) and labels int32 [n]."""

    image: np.ndarray
    label: np.ndarray


class ImageSet(NamedTuple):
    """The splits that a reader returns; `where` is the name of the set in errors.

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
    """Check images and labels, and return them as [n, height, width, channel] and int32 [n].

    Args:
        image: [n, height, width] or with a channel axis, uint8 or floating.
        label: integers [n] or [n, 1] in [0, num_classes).
        num_classes: the number of classes; None: not checked.
        where: the name of the file or folder in an error.
        split: "train", "val" or "test": the suffix of the keys x_ and y_ in errors.

    Raises:
        UserError: with the file, the key and what would be right.
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
    _, height, width, channels = image.shape
    if channels > 4 and (height in (3, 4) or (height in (1, 2) and width > 4)):
        raise UserError(
            f"{where}: {x} has shape {image.shape}, as of channels before height and width; store "
            f"[n, height, width, channel]: {x}.transpose(0, 2, 3, 1)"
        )
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
    out_of_range = (label < 0) | (label >= end)
    if out_of_range.any():
        bad = int(np.argmax(out_of_range))
        raise UserError(
            f"{where}: {key}[{bad}] is {label[bad]}, out of range; labels are integers in "
            f"[0, {num_classes or 'num_classes'})"
        )
    return label.astype(np.int32)


def channel_moments(image: np.ndarray, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of image / scale, in float64, by chunks.

    The deviation of a constant channel is set to 1, so the channel is normalised to exactly 0.
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


def pad_batch(batch: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Pad an evaluation batch to `size` rows: repeat the last example with mask 0.

    Repeated examples, unlike zeros, lie in the range of the data. Predictions that are stored by id
    are stored twice, with the same value.
    """
    count = len(batch["id"])
    rows = np.minimum(np.arange(size), count - 1)
    mask = (np.arange(size) < count).astype(np.float32)
    return {**{name: values[rows] for name, values in batch.items()}, "mask": mask}


def unpad_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an evaluation batch without padding rows."""
    unpadded = np.asarray(batch["mask"]) > 0
    return {name: np.asarray(values)[unpadded] for name, values in batch.items()}


def fits_on_device(on_device: bool | str, size: int) -> bool:
    """Return whether data of `size` bytes is stored on the accelerator; "auto" allows 1 GiB.

    Raises:
        UserError: on another value.
    """
    if on_device not in (True, False, "auto"):
        raise UserError(f"data.on_device is {on_device!r}; it must be True, False or 'auto'")
    return size <= ON_DEVICE_LIMIT if on_device == "auto" else bool(on_device)


def build(image_set: ImageSet, batching: BatchOptions, splitting: SplitOptions) -> Source:
    """Split an in-memory set and return its `Source`.

    Raises:
        UserError: from `splits.plan`, or on batch sizes that are not possible.
    """
    train, validation, test = image_set.train, image_set.validation, image_set.test
    has_test, has_validation = test is not None, validation is not None
    rows = plan(
        train.label, image_set.where, splitting, has_test=has_test, has_validation=has_validation
    )
    splits = {
        name: _pick(*stored) for name, stored in assign_rows(rows, train, validation, test).items()
    }
    train = splits["train"]
    _warn_of_repeats(image_set.where, splits)
    check_batch_sizes(batching, len(train.label))
    mean, std = channel_moments(train.image, image_set.scale)
    shape = tuple(int(size) for size in train.image.shape[1:])
    small = fits_on_device(batching.on_device, train.image.nbytes)
    batch_size = batching.batch_size
    return Source(
        spec=Spec(shape, image_set.num_classes, image_set.class_names, mean, std, image_set.scale),
        size={name: len(pair.label) for name, pair in splits.items()},
        train=(
            id_batches(len(train.label), batch_size) if small else _train_batches(train, batch_size)
        ),
        evals={
            name: _eval_batches(pair, batching.eval_batch_size) for name, pair in splits.items()
        },
        arrays={"image": train.image, "label": train.label} if small else None,
        digest=digest(
            {
                f"{name} {part}s": array
                for name, pair in splits.items()
                for part, array in pair._asdict().items()
            }
        ),
    )


def _warn_of_repeats(where: str, splits: Mapping[str, Pair]) -> None:
    """Warn of images of other splits that are training images, too."""

    def images(split: str) -> Iterator[bytes]:
        return (hashlib.blake2b(image.tobytes()).digest() for image in splits[split].image)

    known = set(images("train"))
    for split in sorted(set(splits) - {"train"}):
        if repeats := sum(image in known for image in images(split)):
            warnings.warn(
                f"{where}: {repeats:,} of {len(splits[split].label):,} {split} images are training "
                "images, too, so that results look better than they are",
                stacklevel=4,
            )


def _pick(pair: Pair, rows: np.ndarray | None) -> Pair:
    if rows is None or len(rows) == len(pair.label):
        return pair  # all rows, in order: no copy
    return Pair(pair.image[rows], pair.label[rows])


def id_batches(size: int, batch_size: int) -> TrainBatches:
    """Return the training batches of `size` examples that are stored on the device: their ids."""

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        while True:
            yield {"id": batch_rows(size, batch_size, seed, step)}
            step += 1

    return batches


def _train_batches(train: Pair, batch_size: int) -> TrainBatches:
    ones = np.ones(batch_size, np.float32)
    ids = id_batches(len(train.label), batch_size)

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        for batch in ids(step, seed):
            rows = batch["id"]
            yield {"image": train.image[rows], "label": train.label[rows], "id": rows, "mask": ones}

    return batches


def _eval_batches(pair: Pair, batch_size: int) -> EvalBatches:
    ids = np.arange(len(pair.label), dtype=np.int32)

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(ids), batch_size):
            rows = slice(start, start + batch_size)
            batch = {"image": pair.image[rows], "label": pair.label[rows], "id": ids[rows]}
            yield pad_batch(batch, batch_size)

    return batches
