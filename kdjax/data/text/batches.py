"""Batches of encoded texts: padded to a few lengths, and of similar length in training.

A batch is padded to the smallest length that fits, so a compiled step has one shape per length.
Training takes an epoch's random order, sorts windows of a few batches by length and shuffles the
batches. The order depends only on (seed, epoch), so training can start at any step.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kdjax.data.splits import check_position, epoch_order
from kdjax.data.text.tokenize import Encoded
from kdjax.types import EvalBatches, TrainBatches

_SHUFFLE = 0x7E87  # separates the random stream of batches from that of epochs


class Padding(NamedTuple):
    """The lengths to which batches are padded, ascending, and the token that pads them."""

    lengths: tuple[int, ...]
    pad_id: int


class Split(NamedTuple):
    """The encoded examples of a split; `choices` is (ids, mask), int32 [n, choices, longest]."""

    text: Encoded
    label: np.ndarray
    choices: tuple[np.ndarray, np.ndarray] | None


def equal_answers(splits: Mapping[str, Split], pad_id: int) -> dict[str, Split]:
    """Pad the answers of all splits to the longest answer of any split."""
    longest = max((s.choices[0].shape[2] for s in splits.values() if s.choices), default=0)

    def pad(array: np.ndarray, value: int) -> np.ndarray:
        wide = ((0, 0), (0, 0), (0, longest - array.shape[2]))
        return np.pad(array, wide, constant_values=value)

    return {
        name: s._replace(choices=s.choices and (pad(s.choices[0], pad_id), pad(s.choices[1], 0)))
        for name, s in splits.items()
    }


def train_batches(split: Split, padding: Padding, batch_size: int, window: int) -> TrainBatches:
    """Return `Source.train`: endless batches, sorted by length within windows of batches."""
    size = np.diff(split.text.start)
    per_epoch = len(size) // batch_size

    @lru_cache(maxsize=4)
    def order(seed: int, epoch: int) -> np.ndarray:
        # Drop the remainder before sorting; afterwards it would always be the longest examples.
        rows = epoch_order(len(size), seed, epoch)[: per_epoch * batch_size]
        parts = [
            part[np.argsort(size[part], kind="stable")]
            for part in np.split(rows, range(window * batch_size, len(rows), window * batch_size))
        ]
        shuffle = np.random.default_rng((seed, epoch, _SHUFFLE)).permutation(per_epoch)
        return np.concatenate(parts).reshape(per_epoch, batch_size)[shuffle]

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        check_position(step, seed)
        while True:
            epoch, index = divmod(step, per_epoch)
            yield _batch(split, order(seed, epoch)[index], batch_size, padding)
            step += 1

    return batches


def eval_order(split: Split) -> np.ndarray:
    """Return the rows int32 [n] in the order of evaluation."""
    return np.argsort(np.diff(split.text.start), kind="stable").astype(np.int32)


def eval_batches(split: Split, padding: Padding, batch_size: int) -> EvalBatches:
    """Return one of `Source.evals`: batches from the shortest example to the longest."""
    order = eval_order(split)

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(order), batch_size):
            yield _batch(split, order[start : start + batch_size], batch_size, padding)

    return batches


def _batch(
    split: Split, ids: np.ndarray, batch_size: int, padding: Padding
) -> dict[str, np.ndarray]:
    """Return examples as a batch; the last one is repeated with mask 0 to fill it."""
    text = split.text
    rows = ids[np.minimum(np.arange(batch_size), len(ids) - 1)]
    size = text.start[rows + 1] - text.start[rows]
    longest = int(size.max())
    column = np.arange(next(length for length in padding.lengths if length >= longest))
    real = column < size[:, None]
    at = np.where(real, text.start[rows][:, None] + column, 0)
    batch = {
        "input_ids": np.where(real, text.ids[at], np.int32(padding.pad_id)),
        "attention_mask": real.astype(np.int32),
        "label": split.label[rows],
        "id": rows,
        "mask": (np.arange(batch_size) < len(ids)).astype(np.float32),
    }
    if split.choices is None:
        batch["token_type_ids"] = np.where(real, text.types[at], np.int32(0))
    else:
        batch["choice_ids"], batch["choice_mask"] = (array[rows] for array in split.choices)
    return batch
