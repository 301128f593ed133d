"""The rows of each split, and the order in which training visits them.

Both depend only on sizes, labels and seeds, so any step can be computed without the steps before.
"""

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.options import BatchOptions, SplitOptions
from kdjax.errors import UserError, is_number

DEFAULT_TEST = 0.25  # share held out as test where a set ships none
_SPLIT_STREAM = 0x5B117  # separates the random stream of the splits from that of the epochs


class Rows(NamedTuple):
    """Rows of the stored training split, int [n] ascending; None if the set ships the split.

    `validation` is also None if its size is 0.
    """

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray | None


def share(value: float | int, total: int, key: str) -> int:
    """Return the number of examples for a fraction of `total`, a float in [0, 1), or a count.

    Raises:
        UserError: a negative number, a float of 1 or more, or a value that is not a number.
    """
    if not is_number(value) or not value >= 0:
        raise UserError(f"{key} is {value!r}; give a fraction in [0, 1) or an integer")
    if isinstance(value, int):
        return value
    if value >= 1:
        raise UserError(f"{key} is {value!r}; a fraction is below 1, a count has no decimal point")
    return max(1, round(value * total)) if value > 0 else 0


def stratified(
    label: np.ndarray, count: int, seed: int, *, leave_one: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (held_out [count], remaining [n - count]), ascending, stratified by class.

    The counts per class are count * n_class / n, rounded by largest remainders: no class is off by
    one example or more. With `leave_one` no class loses its last example while another has more.
    Constant labels give a plain random sample.
    """
    rng = np.random.default_rng((seed, _SPLIT_STREAM))
    classes, sizes = np.unique(label, return_counts=True)
    quota = count * sizes / len(label)
    take = np.floor(quota).astype(int)
    # In balanced sets all remainders are equal: the order is random, so no class is favoured.
    last = leave_one & (take + 1 == sizes)
    order = np.lexsort((rng.permutation(len(classes)), take - quota, last))
    take[order[: count - take.sum()]] += 1
    parts = [
        rng.permutation(np.flatnonzero(label == kind))[:number]
        for kind, number in zip(classes, take, strict=True)
    ]
    held_out = np.sort(np.concatenate(parts))
    return held_out, np.setdiff1d(np.arange(len(label)), held_out, assume_unique=True)


def plan(
    label: np.ndarray, where: str, options: SplitOptions, *, has_test: bool, has_validation: bool
) -> Rows:
    """Choose the rows of each split, and refuse options that leave none to train on.

    Args:
        label: [n] of the stored training split; constant if the labels are unknown.
        where: the name of the set in an error.
        options: `validation` is ignored if the set ships a validation split.
        has_test: whether the set ships a test split.
        has_validation: whether the set ships a validation split.

    Raises:
        UserError: naming the config key and what would be right.
    """
    check_split_seed(options.split_seed)
    if has_test and options.test is not None:
        raise UserError(f"data.test is {options.test} but {where} ships a test split; leave it out")
    train, test, validation = np.arange(len(label)), None, None
    if not has_test:
        value = DEFAULT_TEST if options.test is None else options.test
        test, train = _take(label, train, value, options.split_seed, "data.test")
        if test is None:
            raise UserError(f"data.test is {value} but {where} ships no test split; give more")
    if has_validation and options.validation != SplitOptions.validation:
        warnings.warn(
            f"data.validation is {options.validation}, but {where} ships a validation split, which "
            "is taken",
            stacklevel=3,
        )
    if not has_validation:
        validation, train = _take(
            label, train, options.validation, options.split_seed, "data.validation"
        )
    if options.limit is not None and options.limit < len(train):
        if options.limit < 1:
            raise UserError(f"data.limit is {options.limit}; it must be >= 1")
        train = train[stratified(label[train], options.limit, options.split_seed)[0]]
    lost = np.setdiff1d(label, label[train])
    if len(lost):
        warnings.warn(
            f"{where}: {len(lost)} classes have no training example left, the first is number "
            f"{lost[0]}; lower data.validation or data.test, or raise data.limit",
            stacklevel=3,
        )
    return Rows(train, validation, test)


def assign_rows(
    rows: Rows, train: Any, validation: Any, test: Any
) -> dict[str, tuple[Any, np.ndarray | None]]:
    """Return the stored split of each split's examples, and their rows in it (None: all).

    Args:
        rows: from `plan`.
        train: the stored training split.
        validation: the stored validation split; None if the set ships none.
        test: the same for the test split.
    """
    splits: dict[str, tuple[Any, np.ndarray | None]] = {"train": (train, rows.train)}
    for name, held_out, shipped in (
        ("validation", rows.validation, validation),
        ("test", rows.test, test),
    ):
        if held_out is not None:
            splits[name] = (train, held_out)
        elif shipped is not None:
            splits[name] = (shipped, None)
    return splits


def _take(
    label: np.ndarray, rows: np.ndarray, value: float | int, seed: int, key: str
) -> tuple[np.ndarray | None, np.ndarray]:
    count = share(value, len(rows), key)
    if count == 0:
        return None, rows
    if count >= len(rows):
        raise UserError(f"{key} = {value} leaves no training examples of {len(rows)}; lower it")
    held_out, remaining = stratified(label[rows], count, seed, leave_one=True)
    return rows[held_out], rows[remaining]


def check_split_seed(seed: int) -> None:
    """Refuse a negative seed.

    Raises:
        UserError: naming the config key.
    """
    if seed < 0:
        raise UserError(f"data.split_seed is {seed}; it must be >= 0")


def check_batch_sizes(options: BatchOptions, train_size: int) -> None:
    """Refuse batch sizes below 1, and training batches larger than the training split.

    Raises:
        UserError: naming the config key.
    """
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
    """Return the permutation int32 [size] of the rows in an epoch (read-only)."""
    order = np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)
    order.flags.writeable = False  # the cache returns the same array again
    return order


def check_position(step: int, seed: int) -> None:
    """Refuse a negative seed or step.

    Raises:
        UserError: naming both.
    """
    if step < 0 or seed < 0:
        raise UserError(f"seed is {seed} and step {step}; both must be >= 0")


def batch_rows(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the rows int32 [batch_size] of batch number `step`; epochs drop their remainder.

    Raises:
        UserError: a negative seed or step.
    """
    check_position(step, seed)
    epoch, index = divmod(step, size // batch_size)
    return epoch_order(size, seed, epoch)[index * batch_size : (index + 1) * batch_size]
