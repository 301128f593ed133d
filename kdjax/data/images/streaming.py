"""Sets that are decoded example by example: in memory if small, else streamed with grain.

A reader returns a `RecordSet`. Streaming uses the same permutations as in-memory sets
(`splits.epoch_order`). They depend only on the position, so training can start at any step, with
any number of worker processes.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from kdjax.data.images import in_memory as images
from kdjax.data.images.decode import View, check_readable, fit, squeeze
from kdjax.data.images.in_memory import ImageSet, Pair, channel_moments, pad_batch
from kdjax.data.options import BatchOptions, SplitOptions
from kdjax.data.splits import assign_rows, check_batch_sizes, check_position, epoch_order, plan
from kdjax.errors import RunError, UserError
from kdjax.types import EvalBatches, Source, Spec, TrainBatches

_MOMENTS_SAMPLE = 1024  # images for mean and std of a streamed set: errors of about 1 per cent
END = 2**62  # examples in an endless stream
_THREADS = 4  # each of which decodes a batch ahead


class Records(NamedTuple):
    """One stored split: `get(row)` -> (picture as stored, uint8, label), picklable.

    `label` [size]: the labels, if known without decoding (splits are then stratified).
    """

    get: Callable[[int], tuple[np.ndarray, int]]
    size: int
    label: np.ndarray | None = None


@dataclass(frozen=True)
class Block:
    """One of several equal blocks of every batch's rows."""

    index: int
    count: int


class RecordSet(NamedTuple):
    """The splits that a reader returns, like `in_memory.ImageSet`.

    `view` resizes every picture to `shape`; without a size, stored pictures have that shape.
    `digest` covers the data that is known without decoding. `are_files`: each picture is a file,
    which may be damaged. `threads`: that read, in each process.
    """

    where: str
    train: Records
    test: Records | None
    validation: Records | None
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    view: View = View()
    digest: Mapping[str, str] = {}
    are_files: bool = False
    threads: int = _THREADS


def build(record_set: RecordSet, batching: BatchOptions, splitting: SplitOptions) -> Source:
    """Return the `Source` of a set: in memory if `on_device` (or small, for "auto"), else streamed.

    With a canvas it is always streamed, and training batches hold uncropped pictures: "image" uint8
    [batch, canvas, canvas, channel] and "size" int32 [batch, 2], true heights and widths. The
    statistics of a streamed set come from 1,024 training images, evenly spaced.

    Raises:
        UserError: the errors of `splits.plan`, impossible batch sizes, an example of another shape
            or label, and a canvas together with `on_device`.
    """
    uncropped = record_set.view.canvas is not None
    if uncropped and batching.on_device is True:
        raise UserError(
            "data.on_device is True but data.augment=resized_crop_flip crops pictures that are "
            "streamed; leave data.on_device at auto"
        )
    bytes_needed = record_set.train.size * int(np.prod(record_set.shape))
    if images.fits_on_device(batching.on_device, bytes_needed) and not uncropped:
        return images.build(_materialise(record_set), batching, splitting)
    splits = _splits(record_set, splitting)
    size = {name: len(rows) for name, (_, rows) in splits.items()}
    check_batch_sizes(batching, size["train"])
    fetch = {
        name: partial(_fetch, record_set, *split, uncropped and name == "train")
        for name, split in splits.items()
    }
    sample = np.unique(np.linspace(0, size["train"] - 1, _MOMENTS_SAMPLE).astype(int))
    with ThreadPoolExecutor(record_set.threads) as threads:
        examples = threads.map(partial(_fetch, record_set, *splits["train"], False), sample)
        pixels = np.stack([example["image"] for example in examples])
    mean, std = channel_moments(pixels, 255.0)
    names = record_set.class_names
    spec = Spec(record_set.shape, len(names), names, mean, std, 255.0)

    def verify() -> None:
        examples = [(name, row) for name in size for row in range(size[name])]
        check_readable(lambda example: fetch[example[0]](example[1]), examples)

    def rows(index: int, count: int) -> Source:
        block, threads = Block(index, count), record_set.threads
        return Source(
            spec=spec,
            size=size,
            train=train_batches(fetch["train"], size["train"], batching, block, threads),
            evals={
                name: _eval_batches(fetch[name], size[name], batching, block, threads)
                for name in size
            },
            rows=rows,
            digest=record_set.digest,
            verify=verify if record_set.are_files else None,
        )

    return rows(0, 1)


def _splits(
    record_set: RecordSet, splitting: SplitOptions
) -> dict[str, tuple[Records, np.ndarray]]:
    """Return the stored records of each split, and their rows that belong to the split."""
    train, validation, test = record_set.train, record_set.validation, record_set.test
    label = np.zeros(train.size, np.int32) if train.label is None else train.label
    has_test, has_validation = test is not None, validation is not None
    rows = plan(
        label, record_set.where, splitting, has_test=has_test, has_validation=has_validation
    )
    return {
        name: (records, np.arange(records.size) if chosen is None else chosen)
        for name, (records, chosen) in assign_rows(rows, train, validation, test).items()
    }


def _materialise(record_set: RecordSet) -> ImageSet:
    def read(records: Records) -> Pair:
        image = np.empty((records.size, *record_set.shape), np.uint8)
        label = np.empty(records.size, np.int32)
        all_rows = np.arange(records.size)
        for row in range(records.size):
            example = _fetch(record_set, records, all_rows, False, row)
            image[row], label[row] = example["image"], example["label"]
        return Pair(image, label)

    if not record_set.train.size:
        raise UserError(f"{record_set.where} has no training examples; give at least one")
    return ImageSet(
        where=record_set.where,
        train=read(record_set.train),
        test=record_set.test and read(record_set.test),
        validation=record_set.validation and read(record_set.validation),
        num_classes=len(record_set.class_names),
        class_names=record_set.class_names,
        scale=255.0,
    )


def _fetch(
    record_set: RecordSet, records: Records, rows: np.ndarray, uncropped: bool, row: int
) -> dict[str, Any]:
    """Return and check example `row` of a split; "id" is `row`. `uncropped`: as a canvas."""
    picture, label = records.get(int(rows[row]))
    shape, names = record_set.shape, record_set.class_names
    size = {}
    if uncropped and record_set.view.canvas is not None:
        image, true_size = squeeze(picture, shape[-1], record_set.view.canvas)
        size = {"size": np.array(true_size, np.int32)}
    else:
        image = fit(picture, shape[-1], record_set.view)
    where = f"{record_set.where}: example {rows[row]}"
    if not size and image.shape != shape:
        raise UserError(
            f"{where} has shape {image.shape} but the first one {shape}; set data.image_size to "
            "resize them all"
        )
    if not 0 <= label < len(names):
        raise UserError(f"{where} has label {label}, out of range [0, {len(names)})")
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
    block_size = batch_size // block.count
    step, offset = divmod(position, block_size)
    epoch, index = divmod(step, size // batch_size)
    row = index * batch_size + block.index * block_size + offset
    return fetch(int(epoch_order(size, seed, epoch)[row]))


def _eval_example(fetch: Callable[[int], dict], rows: np.ndarray, position: int) -> dict[str, Any]:
    return fetch(int(rows[position]))


def stream_batches(
    example: Callable[[int], dict[str, Any]],
    positions: tuple[int, int],
    batch_size: int,
    workers: int,
    threads: int,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the examples of a range of positions in batches, in order, decoded ahead."""
    import grain  # takes a second; in-memory sets do not need it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    stream = (
        grain.MapDataset.range(*positions).map(example).batch(batch_size).to_iter_dataset(options)
    )
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
            f"a process that decodes data died (exit code {code}; -9 is often a lack of memory): "
            "lower data.workers, and the same command continues from the last checkpoint"
        ) from error
    finally:
        iterator.close()  # worker processes would outlive the generator


def train_batches(
    fetch: Callable[[int], dict[str, Any]],
    size: int,
    options: BatchOptions,
    block: Block,
    threads: int = _THREADS,
) -> TrainBatches:
    """Return the training batches of examples that are fetched one by one.

    Args:
        fetch: returns example number `row` of the split.
        size: the size of the split.
        options: `batch_size` of all blocks; `workers`: processes that fetch, 0 for threads.
        block: the part of each batch's rows.
        threads: of each process, each of which makes a batch ahead.
    """
    batch_size, block_size = options.batch_size, options.batch_size // block.count

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        check_position(step, seed)  # here, not in a worker
        example = partial(_train_example, fetch, size, batch_size, seed, block)
        positions = (step * block_size, END)
        yield from stream_batches(example, positions, block_size, options.workers, threads)

    return batches


def _eval_batches(
    fetch: Callable[[int], dict[str, Any]],
    size: int,
    options: BatchOptions,
    block: Block,
    threads: int,
) -> EvalBatches:
    batch_size, block_size = options.eval_batch_size, options.eval_batch_size // block.count
    count = -(-size // batch_size)
    table = np.arange(count * batch_size).reshape(count, block.count, block_size)[:, block.index]
    # a block without examples in the last batches repeats the last example with mask 0
    rows = np.concatenate([r[r < size] if r[0] < size else [size - 1] for r in table])
    filled = int(np.sum(table[:, 0] < size))
    # with fewer batches than processes, starting processes takes longer than decoding here
    workers = options.workers if size >= batch_size * options.workers else 0

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        example = partial(_eval_example, fetch, rows)
        stream = stream_batches(example, (0, len(rows)), block_size, workers, threads)
        for number, batch in enumerate(stream):
            padded = pad_batch(batch, block_size)
            yield padded if number < filled else {**padded, "mask": 0 * padded["mask"]}

    return batches
