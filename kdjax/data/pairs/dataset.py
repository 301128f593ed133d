"""Pairs of views that share latent factors: an endless stream with known mutual information.

A `PairSet` samples pairs and renders them; `build` makes a `Source` of it. This module has drawings
of characters: factor i is a character of alphabet i, tile i of the first view is a drawing of it,
and tile i of the second view is a drawing of the next character. Other sets are in `scenes`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from kdjax.data.digest import digest
from kdjax.data.images.in_memory import channel_moments, pad_batch
from kdjax.data.options import BatchOptions, PairOptions, SplitOptions
from kdjax.data.pairs import omniglot
from kdjax.data.splits import batch_rows, check_position, check_split_seed, share
from kdjax.errors import UserError
from kdjax.types import EvalBatches, Source, Spec, TrainBatches

LAYOUTS = ("grid", "stacked")
SPLITS = ("train", "validation", "test")
_STREAM, _POOL, _EVALUATION, _CUT = 0xA1, 0xA2, 0xA3, 0xA4  # separate random streams
_MOMENTS_SAMPLE = 1024  # pairs for mean and std
_IDS = 2**31  # int32

Keys = np.ndarray  # int [n, ...]: describes a pair
Draw = Callable[[np.random.Generator, int], Keys]
Views = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, view, latents int [n, factors]


class PairSet(NamedTuple):
    """A set of pairs: `draw[split](generator, n)` -> keys [n, ...], `make(keys)` -> `Views`.

    `latents`: number of values of each factor; `mutual_information` in nats, or None; `examples`:
    number of drawings (or pictures) that training uses; `stored`: arrays of which a digest is made.
    """

    where: str
    draw: Mapping[str, Draw]
    make: Callable[[Keys], Views]
    latents: tuple[int, ...]
    mutual_information: float | None
    examples: int
    scale: float = 255.0
    stored: Mapping[str, np.ndarray] = {}


def of_drawings(drawn: omniglot.Drawings, options: PairOptions, splitting: SplitOptions) -> PairSet:
    """Return Spatial- (layout "grid") or StackedMultiOmniglot of drawings.

    Factors are uniform and independent, so that the mutual information is sum_i ln(size_i): a
    drawing determines its character, and given the characters the two drawings are independent.
    Every character's drawings are divided over the splits in the same order: by writer where the
    drawings of each character are stored in the order of the writers, as in Omniglot's files; those
    of tfds are not.

    Args:
        drawn: alphabets by size; the first `tiles` are used.
        options: `characters` limits the characters of each alphabet.
        splitting: divides the drawings of every character.

    Raises:
        UserError: fewer alphabets than tiles, fewer characters than `characters`, an unknown
            layout, a tile size that does not divide, a split without drawings.

    Source: the task of Ozair et al. 2019 (arXiv 1903.11780); grids that are not square and the
        split by writer are choices of kdjax.
    """
    count = len(drawn.alphabets)
    if not 1 <= options.tiles <= count:
        raise UserError(
            f"data.tiles is {options.tiles}, but {drawn.where} has {count} alphabets, one a tile; "
            f"use 1 to {count}"
        )
    check_layout(options.layout)
    alphabets = [_characters(drawn, i, options.characters) for i in range(options.tiles)]
    sizes = tuple(len(characters) for characters in alphabets)
    image = omniglot.shrunk(drawn.image, options.tile_size, drawn.where)
    tables = _tables(drawn, np.concatenate(alphabets), splitting)
    first = np.cumsum((0, *sizes[:-1]))  # row of an alphabet's first character in the tables

    def draw(split: str) -> Draw:
        rows, counts = tables[split]

        def keys(generator: np.random.Generator, n: int) -> Keys:
            z = generator.integers(0, sizes, (n, len(sizes)))
            following = (z + 1) % np.array(sizes)
            drawing = [
                rows[c, (generator.random(c.shape) * counts[c]).astype(int)]
                for c in (first + z, first + following)
            ]
            return np.stack([z, *drawing], axis=1)  # [n, 3, tiles]

        return keys

    def make(keys: Keys) -> Views:
        z, x, y = keys[:, 0], keys[:, 1], keys[:, 2]
        return arrange(image[x], options.layout), arrange(image[y], options.layout), z

    return PairSet(
        drawn.where,
        {split: draw(split) for split in SPLITS},
        make,
        sizes,
        sum(math.log(size) for size in sizes),
        int(tables["train"][1].sum()),
        drawn.scale,
        {"drawings": drawn.image, "characters": drawn.character},
    )


def _characters(drawn: omniglot.Drawings, number: int, count: int | None) -> np.ndarray:
    """Return the first `count` characters of an alphabet, or all."""
    alphabet = drawn.alphabets[number]
    if count is not None and not 2 <= count <= len(alphabet):
        raise UserError(
            f"data.characters is {count}, but {drawn.names[number]} has {len(alphabet)}; with "
            f"{number + 1} or more tiles use 2 to {len(alphabet)}"
        )
    return alphabet[:count]


def _tables(
    drawn: omniglot.Drawings, characters: np.ndarray, splitting: SplitOptions
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by split the rows of each character's drawings, [characters, most], and counts."""
    rows_by_split: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    rows_by_character = omniglot.character_rows(drawn, characters)
    for character, rows in zip(characters, rows_by_character, strict=True):
        positions = parts(len(rows), splitting, f"{drawn.where}: character {character}")
        for split in SPLITS:
            rows_by_split[split].append(rows[positions[split]])
    tables = {}
    for split, ragged in rows_by_split.items():
        counts = np.array([len(rows) for rows in ragged])
        tables[split] = (np.stack([np.resize(rows, counts.max()) for rows in ragged]), counts)
    return tables


def parts(count: int, options: SplitOptions, where: str) -> dict[str, np.ndarray]:
    """Divide `count` examples over the splits; return ascending positions, equal for equal counts.

    Raises:
        UserError: a split would be empty.
    """
    test = 0.25 if options.test is None else options.test
    sizes = {
        "test": share(test, count, "data.test"),
        "validation": share(options.validation, count, "data.validation"),
    }
    sizes["train"] = count - sum(sizes.values())
    if min(sizes.values()) < 1:
        raise UserError(
            f"{where} has {count} examples, of which data.validation and data.test leave "
            + ", ".join(f"{max(0, sizes[split])} for {split}" for split in SPLITS)
            + "; each split needs one or more"
        )
    order = np.random.default_rng((options.split_seed, _CUT)).permutation(count)
    ends = np.cumsum([sizes[split] for split in SPLITS])[:-1]
    return {split: np.sort(part) for split, part in zip(SPLITS, np.split(order, ends), strict=True)}


def check_layout(layout: str) -> None:
    """Raise an error for an unknown layout."""
    if layout not in LAYOUTS:
        raise UserError(f"data.layout is {layout!r}; there are {', '.join(LAYOUTS)}")


def arrange(tiles: np.ndarray, layout: str) -> np.ndarray:
    """Arrange tiles [n, d, side, side] in images: a grid as square as d allows, or d channels."""
    n, d, side, _ = tiles.shape
    if layout == "stacked":
        return np.moveaxis(tiles, 1, -1)
    rows = max(r for r in range(1, math.isqrt(d) + 1) if d % r == 0)
    grid = tiles.reshape(n, rows, d // rows, side, side).transpose(0, 1, 3, 2, 4)
    return grid.reshape(n, rows * side, -1, 1)


def check(options: PairOptions, batching: BatchOptions, splitting: SplitOptions) -> None:
    """Raise an error for counts out of range.

    Raises:
        UserError: naming the config key.
    """
    for name, value in (("eval_pairs", options.eval_pairs), ("pool", options.pool)):
        if value is not None and value < 1:
            raise UserError(f"data.{name} is {value}; it must be >= 1")
    if options.pool is not None and options.pool < batching.batch_size:
        raise UserError(
            f"batch_size is {batching.batch_size}, but data.pool has {options.pool} pairs; it must "
            "hold a batch"
        )
    check_split_seed(splitting.split_seed)


def build(pairs: PairSet, options: PairOptions, batching: BatchOptions, split_seed: int) -> Source:
    """Return the `Source` of a set of pairs; `check` has accepted the options.

    Training is an endless stream of new pairs, or with `pool` epochs of that many pairs, sampled
    once by the run's seed. The splits "train" (pairs of the training drawings, to fit probes),
    "validation" and "test" have `eval_pairs` each, equal for every seed.
    """
    sample = np.random.default_rng((split_seed, _CUT + 1))
    image, _, _ = pairs.make(pairs.draw["train"](sample, _MOMENTS_SAMPLE))
    mean, std = channel_moments(image, pairs.scale)
    shape = tuple(int(size) for size in image.shape[1:])
    spec = Spec(shape, 0, (), mean, std, pairs.scale)
    spec = spec._replace(latents=pairs.latents, mutual_information=pairs.mutual_information)
    return Source(
        spec=spec,
        size={**dict.fromkeys(SPLITS, options.eval_pairs), "train": options.pool or pairs.examples},
        train=_train_batches(pairs, options.pool, batching.batch_size),
        evals={
            split: _eval_batches(pairs, split, options.eval_pairs, batching, split_seed)
            for split in SPLITS
        },
        digest=digest({**pairs.stored, "sample": image}),
    )


def _train_batches(pairs: PairSet, pool: int | None, batch_size: int) -> TrainBatches:
    draw = pairs.draw["train"]

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        check_position(step, seed)
        pool_keys = None if pool is None else draw(np.random.default_rng((seed, _POOL)), pool)
        while True:
            if pool_keys is None:
                keys = draw(np.random.default_rng((seed, _STREAM, step)), batch_size)
                ids = (step * batch_size + np.arange(batch_size)) % _IDS
            else:
                ids = batch_rows(len(pool_keys), batch_size, seed, step)
                keys = pool_keys[ids]
            yield _batch(pairs.make(keys), ids, batch_size)
            step += 1

    return batches


def _eval_batches(
    pairs: PairSet, split: str, count: int, options: BatchOptions, split_seed: int
) -> EvalBatches:
    size = options.eval_batch_size

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        generator = np.random.default_rng((split_seed, _EVALUATION, SPLITS.index(split)))
        keys = pairs.draw[split](generator, count)
        for start in range(0, count, size):
            rows = keys[start : start + size]
            yield _batch(pairs.make(rows), start + np.arange(len(rows)), size)

    return batches


def _batch(views: Views, ids: np.ndarray, size: int) -> dict[str, np.ndarray]:
    image, view, latents = views
    label = latents.astype(np.int32)
    batch = {"image": image, "view": view, "label": label, "id": ids.astype(np.int32)}
    return pad_batch(batch, size)
