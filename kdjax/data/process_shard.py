"""The part of a source that one of several processes reads: some rows of every batch."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdjax.types import Source


def shard_source(source: Source, index: int, count: int) -> Source:
    """Return the source of one process: block `index` of `count` equal blocks of a batch's rows.

    The concatenated batches of all processes are those of the source: with any number of processes
    training takes the same steps, and evaluation counts every example once. `arrays` are not
    divided.

    Args:
        source: its batch sizes must be multiples of `count`.
        index: the index of the process.
        count: the number of processes.
    """
    if count == 1:
        return source
    if source.rows is not None:  # does not decode rows of other processes
        return source.rows(index, count)

    def shard(batches: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for batch in batches:
            yield {name: _block(value, index, count) for name, value in batch.items()}

    return source._replace(
        train=lambda step, seed: shard(source.train(step, seed)),
        evals={
            split: lambda batches=batches: shard(batches())
            for split, batches in source.evals.items()
        },
    )


def _block(value: Any, index: int, count: int) -> Any:
    size = len(value) // count
    return value[index * size : (index + 1) * size]
