"""What one of several processes reads of a source: its own rows of every batch."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdjax.types import Source

__all__ = ["rows_of"]


def rows_of(source: Source, index: int, count: int) -> Source:
    """The source of one process: block `index` of `count` equal blocks of every batch's rows.

    The batches of all processes, one below the other, are those of the source: with any number of
    processes training takes the same steps, and evaluation counts every example once. What lives
    on the device stays whole.

    Args:
      source: its batch sizes must be multiples of `count`.
      index: of the process.
      count: of processes.
    """
    if count == 1:
        return source
    if source.rows is not None:  # decodes no row of another process
        return source.rows(index, count)

    def own(batches: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for batch in batches:
            yield {name: _block(value, index, count) for name, value in batch.items()}

    return source._replace(
        train=lambda step, seed: own(source.train(step, seed)),
        evals={
            split: lambda batches=batches: own(batches()) for split, batches in source.evals.items()
        },
    )


def _block(value: Any, index: int, count: int) -> Any:
    size = len(value) // count
    return value[index * size : (index + 1) * size]
