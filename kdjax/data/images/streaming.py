"""Sets that are decoded example by example: kept in memory when small, else streamed with grain.

A reader returns a `RecordSet`. Streaming walks through the same permutations as in-memory sets
(`splits.epoch_order`), computed from the position alone: any step can be the first, whatever the
number of worker processes.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from kdjax.data.images import in_memory as images
from kdjax.data.images.decode import View, fit, squeeze
from kdjax.data.images.in_memory import ImageSet, Pair, channel_moments, pad_batch
from kdjax.data.splits import Options, batch_rows, epoch_order, plan
from kdjax.types import EvalBatches, RunError, Source, Spec, TrainBatches, UserError

__all__ = ["END", "Block", "RecordSet", "Records", "build", "stream_batches", "train_batches"]

_MOMENTS_SAMPLE = 1024  # images behind mean and std of a streamed set: errors of about 1 per cent
END = 2**62  # examples in an endless stream
_THREADS, _BUFFER = 4, 4  # batches, not examples, are what a thread makes and the buffer holds


class Records(NamedTuple):
    """One stored split: `get(row)` -> (picture as stored, uint8, label), picklable.

    `label` [size] where the labels are known without decoding (splits are stratified then).
    """

    get: Callable[[int], tuple[np.ndarray, int]]
    size: int
    label: np.ndarray | None = None


class Block(NamedTuple):
    """Which of how many equal blocks of every batch's rows is read."""

    number: int
    among: int


class RecordSet(NamedTuple):
    """What a reader found, like `in_memory.ImageSet`.

    `view` brings every picture to `shape`; pictures without a size in it have that shape already.
    """

    where: str
    train: Records
    test: Records | None
    validation: Records | None
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    view: View = View()


def build(found: RecordSet, options: Options) -> Source:
    """Return the `Source` of a set: in memory if `on_device` (or small, for "auto"), else streamed.

    With a canvas it is always streamed, and training batches hold whole pictures: "image" uint8
    [batch, canvas, canvas, channel] and "size" int32 [batch, 2], true heights and widths. The
    statistics of a streamed set come from 1,024 training images, evenly spaced.

    Raises:
        UserError: from `splits.plan`, on an example of another shape or label, and on a canvas
            together with `on_device`.
    """
    whole = found.view.canvas is not None
    if whole and options.on_device is True:
        raise UserError(
            "data.on_device is True but data.augment=resized_crop_flip crops whole pictures, "
            "which are streamed; leave data.on_device at auto"
        )
    bytes_needed = found.train.size * int(np.prod(found.shape))
    auto = options.on_device == "auto"
    if not whole and (bytes_needed <= images.ON_DEVICE_LIMIT if auto else options.on_device):
        return images.build(_materialise(found), options)
    splits = _splits(found, options)
    size = {name: len(rows) for name, (_, rows) in splits.items()}
    fetch = {
        name: partial(_fetch, found, *split, whole and name == "train")
        for name, split in splits.items()
    }
    sample = np.unique(np.linspace(0, size["train"] - 1, _MOMENTS_SAMPLE).astype(int))
    pixels = np.stack([_fetch(found, *splits["train"], False, row)["image"] for row in sample])
    mean, std = channel_moments(pixels, 255.0)
    spec = Spec(found.shape, len(found.class_names), found.class_names, mean, std, 255.0)

    def rows(index: int, count: int) -> Source:
        block = Block(index, count)
        return Source(
            spec=spec,
            size=size,
            train=train_batches(
                fetch["train"], size["train"], options.batch_size, options.workers, block
            ),
            evals={name: _eval_batches(fetch[name], size[name], options, block) for name in size},
            rows=rows,
        )

    return rows(0, 1)


def _splits(found: RecordSet, options: Options) -> dict[str, tuple[Records, np.ndarray]]:
    """Return by split the stored records and which of their rows belong to it."""
    known = found.train.label
    rows = plan(
        np.zeros(found.train.size, np.int32) if known is None else known,
        found.where,
        options,
        has_test=found.test is not None,
        has_validation=found.validation is not None,
    )
    splits = {"train": (found.train, rows.train)}
    for name, held, shipped in (
        ("validation", rows.validation, found.validation),
        ("test", rows.test, found.test),
    ):
        if held is not None:
            splits[name] = (found.train, held)
        elif shipped is not None:
            splits[name] = (shipped, np.arange(shipped.size))
    return splits


def _materialise(found: RecordSet) -> ImageSet:
    def read(records: Records | None) -> Pair | None:
        if records is None:
            return None
        image = np.empty((records.size, *found.shape), np.uint8)
        label = np.empty(records.size, np.int32)
        everything = np.arange(records.size)
        for row in range(records.size):
            example = _fetch(found, records, everything, False, row)
            image[row], label[row] = example["image"], example["label"]
        return Pair(image, label)

    train = read(found.train)
    if train is None or not len(train.label):
        raise UserError(f"{found.where} has no training examples; give at least one")
    return ImageSet(
        found.where,
        train,
        read(found.test),
        read(found.validation),
        len(found.class_names),
        found.class_names,
        255.0,
    )


def _fetch(
    found: RecordSet, records: Records, rows: np.ndarray, whole: bool, row: int
) -> dict[str, Any]:
    """Return example `row` of a split, checked; "id" is `row`, `whole` asks for its canvas."""
    picture, label = records.get(int(rows[row]))
    size = {}
    if whole and found.view.canvas is not None:
        image, true = squeeze(picture, found.shape[-1], found.view.canvas)
        size = {"size": np.array(true, np.int32)}
    else:
        image = fit(picture, found.shape[-1], found.view)
    if not size and image.shape != found.shape:
        raise UserError(
            f"{found.where}: example {rows[row]} has shape {image.shape} but the first one "
            f"{found.shape}; set data.image_size to resize them all"
        )
    if not 0 <= label < len(found.class_names):
        raise UserError(
            f"{found.where}: example {rows[row]} has label {label}, out of range "
            f"[0, {len(found.class_names)})"
        )
    return {
        "image": image,
        "label": np.int32(label),
        "id": np.int32(row),
        "mask": np.float32(1),
        **size,
    }


def _train_example(
    fetch: Callable[[int], dict],
    size: int,
    batch_size: int,
    seed: int,
    block: Block,
    position: int,
) -> dict[str, Any]:
    """Return the example at a position of a block's endless stream; see `splits.batch_rows`."""
    own = batch_size // block.among
    step, offset = divmod(position, own)
    epoch, index = divmod(step, size // batch_size)
    row = index * batch_size + block.number * own + offset
    return fetch(int(epoch_order(size, seed, epoch)[row]))


def _eval_example(fetch: Callable[[int], dict], own: np.ndarray, position: int) -> dict[str, Any]:
    return fetch(int(own[position]))


def stream_batches(
    example: Callable[[int], dict[str, Any]], start: int, stop: int, batch_size: int, workers: int
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield example(start), ... example(stop - 1) in batches, decoded ahead in order."""
    import grain  # a second that in-memory sets need not wait for

    positions = grain.MapDataset.range(start, stop)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFER)
    stream = positions.map(example).batch(batch_size).to_iter_dataset(options)
    if workers > 0:
        if not flags.FLAGS.is_parsed():  # grain reads an absl flag here, also in a notebook
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    iterator = iter(stream)
    try:
        yield from iterator
    except RuntimeError as error:
        if workers == 0 or "exit code" not in str(error):
            raise
        code = str(error).partition("exit code ")[2].split(". ")[0]
        raise RunError(
            f"a process that decodes data ended unasked (exit code {code}; -9 is often a lack of "
            "memory): lower data.workers, and the same command goes on from the last checkpoint"
        ) from error
    finally:
        iterator.close()  # worker processes would outlive the generator


def train_batches(
    fetch: Callable[[int], dict[str, Any]], size: int, batch_size: int, workers: int, block: Block
) -> TrainBatches:
    """Training batches of examples that are fetched one by one: a block of each batch's rows.

    Args:
      fetch: returns example number `row` of the split.
      size: of the split.
      batch_size: of the whole batch.
      workers: processes that fetch; 0 fetches in threads of this one.
      block: which rows.
    """
    own = batch_size // block.among

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        batch_rows(size, batch_size, seed, step)  # refuses a bad seed here, not in a worker
        example = partial(_train_example, fetch, size, batch_size, seed, block)
        yield from stream_batches(example, step * own, END, own, workers)

    return batches


def _eval_batches(
    fetch: Callable[[int], dict[str, Any]], size: int, options: Options, block: Block
) -> EvalBatches:
    batch_size, each = options.eval_batch_size, options.eval_batch_size // block.among
    number = -(-size // batch_size)
    row = np.arange(number * batch_size).reshape(number, block.among, each)[:, block.number]
    # a block whose last batches hold no example repeats the last one of all, with mask 0
    own = np.concatenate([r[r < size] if r[0] < size else [size - 1] for r in row])
    empty = int(np.sum(row[:, 0] >= size))
    # as many batches as processes, or starting them takes longer than decoding here
    workers = options.workers if size >= batch_size * options.workers else 0

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        example = partial(_eval_example, fetch, own)
        found = stream_batches(example, 0, len(own), each, workers)
        for count, batch in enumerate(found, start=1):
            padded = pad_batch(batch["image"], batch["label"], batch["id"], each)
            if "size" in batch:
                rows = np.minimum(np.arange(each), len(batch["size"]) - 1)
                padded["size"] = batch["size"][rows]
            if count > number - empty:
                padded["mask"] = np.zeros(each, np.float32)
            yield padded

    return batches
