"""Which rows belong to which split, and in which order training walks through them.

Everything is a function of sizes, labels and seeds, so that any step of any epoch can be computed
without the steps before it.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kdjax.types import UserError

__all__ = ["Options", "Rows", "batch_rows", "epoch_order", "plan", "share", "stratified"]

DEFAULT_TEST = 0.25  # share held out as test where a set ships none
_SPLIT_STREAM = 0x5B117  # keeps the draws of the splits apart from those of the epochs


class Options(NamedTuple):
    """The part of `load`'s arguments that every kind of set shares; see there."""

    batch_size: int
    eval_batch_size: int = 256
    validation: float | int = 0.1
    test: float | int | None = None
    split_seed: int = 0
    on_device: bool | str = "auto"
    workers: int = 0
    limit: int | None = None


class Rows(NamedTuple):
    """Rows of the stored training split, int [n] ascending; None where the set ships the split.

    (`validation` is None also where none is wanted.)
    """

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray | None


def share(value: float | int, total: int, key: str) -> int:
    """Return how many of `total` examples a fraction in [0, 1) or a whole count means.

    Raises:
        UserError: on a negative number, a float of 1 or more, or what is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise UserError(f"{key} is {value!r}; give a fraction in [0, 1) or a whole count")
    if isinstance(value, int):
        return value
    if value >= 1:
        raise UserError(f"{key} is {value!r}; a fraction is below 1, a count has no decimal point")
    return max(1, round(value * total)) if value > 0 else 0


def stratified(label: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (held [count], kept [n - count]), both ascending, keeping class shares.

    The counts per class are the largest-remainder rounding of count * n_class / n, so that no
    class is off by one example or more. Constant labels give a plain random sample.
    """
    rng = np.random.default_rng((seed, _SPLIT_STREAM))
    classes, sizes = np.unique(label, return_counts=True)
    quota = count * sizes / len(label)
    take = np.floor(quota).astype(int)
    # Remainders tie in balanced sets: the seed decides, so that no class is favoured.
    order = np.lexsort((rng.permutation(len(classes)), take - quota))
    take[order[: count - take.sum()]] += 1
    parts = [
        rng.permutation(np.flatnonzero(label == kind))[:number]
        for kind, number in zip(classes, take, strict=True)
    ]
    held = np.sort(np.concatenate(parts))
    return held, np.setdiff1d(np.arange(len(label)), held, assume_unique=True)


def plan(
    label: np.ndarray, where: str, options: Options, *, has_test: bool, has_validation: bool
) -> Rows:
    """Decide on the splits of a set, and refuse options that leave nothing to train on.

    Args:
        label: [n] of the stored training split; constant where the labels are unknown.
        where: the set, as it should stand in an error.
        options: `validation` is ignored where the set ships one.
        has_test: whether the set ships a test split.
        has_validation: whether the set ships a validation split.

    Raises:
        UserError: naming the config key.
    """
    if options.split_seed < 0:
        raise UserError(f"data.split_seed is {options.split_seed}; it must be >= 0")
    if has_test and options.test is not None:
        raise UserError(f"data.test is {options.test} but {where} ships a test split; leave it out")
    train, test, validation = np.arange(len(label)), None, None
    if not has_test:
        value = DEFAULT_TEST if options.test is None else options.test
        test, train = _take(label, train, value, options.split_seed, "data.test")
        if test is None:
            raise UserError(f"data.test is {value} but {where} ships no test split; give more")
    if not has_validation:
        validation, train = _take(
            label, train, options.validation, options.split_seed, "data.validation"
        )
    if options.limit is not None and options.limit < len(train):
        if options.limit < 1:
            raise UserError(f"data.limit is {options.limit}; it must be >= 1")
        train = train[stratified(label[train], options.limit, options.split_seed)[0]]
    _check_batch_sizes(options, len(train))
    return Rows(train, validation, test)


def _take(
    label: np.ndarray, rows: np.ndarray, value: float | int, seed: int, key: str
) -> tuple[np.ndarray | None, np.ndarray]:
    count = share(value, len(rows), key)
    if count == 0:
        return None, rows
    if count >= len(rows):
        raise UserError(f"{key} = {value} leaves no training examples of {len(rows)}; lower it")
    held, kept = stratified(label[rows], count, seed)
    return rows[held], rows[kept]


def _check_batch_sizes(options: Options, train_size: int) -> None:
    for key in ("batch_size", "eval_batch_size"):
        if getattr(options, key) < 1:
            raise UserError(f"{key} is {getattr(options, key)}; it must be >= 1")
    if options.batch_size > train_size:
        raise UserError(
            f"batch_size is {options.batch_size} but the training split has {train_size} examples; "
            f"at most {train_size} is possible"
        )


@lru_cache(maxsize=8)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation int32 [size] that epoch number `epoch` walks through (read-only)."""
    order = np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)
    order.flags.writeable = False  # it is shared through the cache
    return order


def batch_rows(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the rows int32 [batch_size] of batch number `step`; epochs drop their remainder.

    Raises:
        UserError: on a negative seed or step.
    """
    if step < 0 or seed < 0:
        raise UserError(f"seed is {seed} and step {step}; both must be >= 0")
    epoch, index = divmod(step, size // batch_size)
    return epoch_order(size, seed, epoch)[index * batch_size : (index + 1) * batch_size]
