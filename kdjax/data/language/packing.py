"""Rows of a fixed length that hold whole pieces of documents, told apart by segment ids."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Tokens that a network reads, and the token after each of them; -1 where none is predicted."""

    ids: np.ndarray  # int32 [tokens]
    label: np.ndarray  # int32 [tokens]


class PackedRows(NamedTuple):
    """Rows of tokens; `segment_ids` number the pieces of a row from 1, and are 0 of padding."""

    input_ids: np.ndarray  # int32 [rows, length]
    segment_ids: np.ndarray  # int32 [rows, length]
    label: np.ndarray  # int32 [rows, length]; -1 where no token is predicted


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Distribute pieces over rows of a length: the largest first, each where least room is left.

    Returns:
        The numbers of the pieces of each row.

    >>> best_fit([2, 5, 3, 1], 5)
    [[1], [2, 0], [3]]
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]  # free tokens -> rows
    for piece in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        size = sizes[piece]
        free = next((room for room in range(size, length) if with_room[room]), length)
        if free == length:
            rows.append([])
            row = len(rows) - 1
        else:
            row = with_room[free].pop()
        rows[row].append(piece)
        with_room[free - size].append(row)
    return rows


def fill_rows(
    pieces: Sequence[Piece], rows: Sequence[Sequence[int]], length: int, pad_id: int
) -> PackedRows:
    """Lay pieces into rows of a length, one after another.

    Args:
        pieces: none longer than `length`.
        rows: the numbers of the pieces of each row.
        length: of a row.
        pad_id: the token after the last piece.
    """
    shape = (len(rows), length)
    packed = PackedRows(
        np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    )
    for row, numbers in enumerate(rows):
        at = 0
        for segment, number in enumerate(numbers, 1):
            piece = pieces[number]
            place = slice(at, at + len(piece.ids))
            packed.input_ids[row, place] = piece.ids
            packed.segment_ids[row, place] = segment
            packed.label[row, place] = piece.label
            at = place.stop
    return packed
