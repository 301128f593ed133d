"""Pairs of views that share hidden factors: an endless stream whose mutual information is known.

A *set of pairs* says how one is drawn and how it looks; `build` turns it into a `Source`. Drawings
of characters are here: factor i is a character of alphabet i, tile i of the first view a drawing
of it and tile i of the second one a drawing of the next character. Other sets are in `views`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax.data.images.in_memory import channel_moments, pad_batch
from kdjax.data.pairs import omniglot
from kdjax.data.splits import batch_rows, share
from kdjax.types import EvalBatches, Source, Spec, TrainBatches, UserError

__all__ = ["PairOptions", "PairSet", "build", "check", "of_drawings", "parts"]

LAYOUTS = ("grid", "stacked")
SPLITS = ("train", "validation", "test")
_STREAM, _POOL, _EVALUATION, _CUT = 0xA1, 0xA2, 0xA3, 0xA4  # keep their draws apart
_MOMENTS_SAMPLE = 1024  # pairs behind mean and std
_IDS = 2**31  # int32

Keys = np.ndarray  # int [n, ...]: what a pair is made of
Draw = Callable[[np.random.Generator, int], Keys]
Views = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, view, latents int [n, factors]


class PairOptions(NamedTuple):
    """The part of a config's `data` that pairs have; see `data.load_pairs`."""

    batch_size: int
    eval_batch_size: int = 256
    path: str | None = None
    tiles: int = 1
    layout: str = "grid"
    tile_size: int | None = None
    characters: int | None = None
    pool: int | None = None
    eval_pairs: int = 2000
    validation: float | int = 0.1
    test: float | int | None = None
    split_seed: int = 0


class PairSet(NamedTuple):
    """How pairs come about.

    `draw[split](generator, n)` -> keys [n, ...], `make(keys)` -> (image, view, latents); `latents`:
    values of each factor; `mutual_information` in nats, or None; `examples`: how many drawings (or
    pictures) training uses.
    """

    where: str
    draw: Mapping[str, Draw]
    make: Callable[[Keys], Views]
    latents: tuple[int, ...]
    mutual_information: float | None
    examples: int
    scale: float = 255.0


def of_drawings(found: omniglot.Drawings, options: PairOptions) -> PairSet:
    """Make Spatial- (layout "grid") or StackedMultiOmniglot of drawings.

    Factors are uniform and independent, so that the mutual information is sum_i ln(size_i): the
    character can be told from a drawing, and beyond it the two drawings are independent. Every
    character's drawings are divided over the splits, in one order: with Omniglot by drawer.

    Args:
        found: alphabets by size; the first `tiles` are used.
        options: `characters` keeps so many of each alphabet.

    Raises:
        UserError: fewer alphabets than tiles, fewer characters than asked for, a layout that does
            not exist, a tile size that does not divide, a split without drawings.

    Source: the task of Ozair et al. 2019 (arXiv 1903.11780); grids that are not square and the
        division by drawer are choices of ours.
    """
    if not 1 <= options.tiles <= len(found.alphabets):
        raise UserError(
            f"data.tiles is {options.tiles}, but {found.where} has {len(found.alphabets)} "
            f"alphabets, one a tile; use 1 to {len(found.alphabets)}"
        )
    check_layout(options.layout)
    alphabets = [_kept(found, i, options.characters) for i in range(options.tiles)]
    sizes = tuple(len(characters) for characters in alphabets)
    image = omniglot.shrunk(found.image, options.tile_size, found.where)
    tables = _tables(found, np.concatenate(alphabets), options)
    first = np.cumsum((0, *sizes[:-1]))  # row of an alphabet's first character in the tables

    def draw(split: str) -> Draw:
        rows, counts = tables[split]

        def keys(generator: np.random.Generator, n: int) -> Keys:
            z = generator.integers(0, sizes, (n, len(sizes)))
            following = (z + 1) % np.array(sizes)
            which = [
                rows[c, (generator.random(c.shape) * counts[c]).astype(int)]
                for c in (first + z, first + following)
            ]
            return np.stack([z, *which], axis=1)  # [n, 3, tiles]

        return keys

    def make(keys: Keys) -> Views:
        z, x, y = keys[:, 0], keys[:, 1], keys[:, 2]
        return arrange(image[x], options.layout), arrange(image[y], options.layout), z

    return PairSet(
        found.where,
        {split: draw(split) for split in SPLITS},
        make,
        sizes,
        sum(math.log(size) for size in sizes),
        int(tables["train"][1].sum()),
        found.scale,
    )


def _kept(found: omniglot.Drawings, number: int, characters: int | None) -> np.ndarray:
    whole = found.alphabets[number]
    if characters is None:
        return whole
    if not 2 <= characters <= len(whole):
        raise UserError(
            f"data.characters is {characters}, but {found.names[number]} has {len(whole)}; with "
            f"{number + 1} or more tiles use 2 to {len(whole)}"
        )
    return whole[:characters]


def _tables(
    found: omniglot.Drawings, characters: np.ndarray, options: PairOptions
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By split, rows of each character's drawings, [characters, most], and how many there are."""
    rows = omniglot.character_rows(found, characters)
    kept: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for name, of_one in zip(characters, rows, strict=True):
        cut = parts(len(of_one), options, f"{found.where}: character {name}")
        for split in SPLITS:
            kept[split].append(of_one[cut[split]])
    found_tables = {}
    for split, lists in kept.items():
        counts = np.array([len(one) for one in lists])
        table = np.stack([np.resize(one, counts.max()) for one in lists])
        found_tables[split] = (table, counts)
    return found_tables


def parts(count: int, options: PairOptions, where: str) -> dict[str, np.ndarray]:
    """Divide `count` things over the splits: positions, ascending, one order for equal counts.

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
    """Refuse a layout that does not exist."""
    if layout not in LAYOUTS:
        raise UserError(f"data.layout is {layout!r}; there are {', '.join(LAYOUTS)}")


def arrange(tiles: np.ndarray, layout: str) -> np.ndarray:
    """Put tiles [n, d, side, side] into images: a grid as square as d allows, or d channels."""
    n, d, side, _ = tiles.shape
    if layout == "stacked":
        return np.moveaxis(tiles, 1, -1)
    rows = max(r for r in range(1, math.isqrt(d) + 1) if d % r == 0)
    grid = tiles.reshape(n, rows, d // rows, side, side).transpose(0, 1, 3, 2, 4)
    return grid.reshape(n, rows * side, -1, 1)


def check(options: PairOptions) -> None:
    """Refuse counts out of range.

    Raises:
        UserError: naming the config key.
    """
    for name, value in (("eval_pairs", options.eval_pairs), ("pool", options.pool)):
        if value is not None and value < 1:
            raise UserError(f"data.{name} is {value}; it must be >= 1")
    if options.pool is not None and options.pool < options.batch_size:
        raise UserError(
            f"batch_size is {options.batch_size}, but data.pool has {options.pool} pairs; it must "
            "hold a batch"
        )
    if options.split_seed < 0:
        raise UserError(f"data.split_seed is {options.split_seed}; it must be >= 0")


def build(found: PairSet, options: PairOptions) -> Source:
    """Return the `Source` of a set of pairs; of options that were checked.

    Training is an endless stream of fresh pairs, or with `pool` walks through that many, drawn once
    by the run's seed. The splits "train" (pairs of the training drawings, on which probes are
    fitted), "validation" and "test" hold `eval_pairs` each, the same for every seed.
    """
    sample = np.random.default_rng((options.split_seed, _CUT + 1))
    image, _, _ = found.make(found.draw["train"](sample, _MOMENTS_SAMPLE))
    mean, std = channel_moments(image, found.scale)
    shape = tuple(int(size) for size in image.shape[1:])
    spec = Spec(shape, 0, (), mean, std, found.scale)
    spec = spec._replace(latents=found.latents, mutual_information=found.mutual_information)
    sizes = dict.fromkeys(SPLITS, options.eval_pairs)
    return Source(
        spec=spec,
        size={**sizes, "train": options.pool or found.examples},
        train=_train_batches(found, options),
        evals={split: _eval_batches(found, split, options) for split in SPLITS},
    )


def _train_batches(found: PairSet, options: PairOptions) -> TrainBatches:
    size, pool, draw = options.batch_size, options.pool, found.draw["train"]

    def batches(step: int, seed: int) -> Iterator[Mapping[str, np.ndarray]]:
        if step < 0 or seed < 0:
            raise UserError(f"seed is {seed} and step {step}; both must be >= 0")
        kept = None if pool is None else draw(np.random.default_rng((seed, _POOL)), pool)
        while True:
            if kept is None:
                keys = draw(np.random.default_rng((seed, _STREAM, step)), size)
                ids = (step * size + np.arange(size)) % _IDS
            else:
                ids = batch_rows(len(kept), size, seed, step)
                keys = kept[ids]
            yield _batch(found.make(keys), ids, size)
            step += 1

    return batches


def _eval_batches(found: PairSet, split: str, options: PairOptions) -> EvalBatches:
    size = options.eval_batch_size

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        number = SPLITS.index(split)
        generator = np.random.default_rng((options.split_seed, _EVALUATION, number))
        keys = found.draw[split](generator, options.eval_pairs)
        for start in range(0, len(keys), size):
            rows = keys[start : start + size]
            yield _batch(found.make(rows), start + np.arange(len(rows)), size)

    return batches


def _batch(views: Views, ids: Sequence[int] | np.ndarray, size: int) -> dict[str, np.ndarray]:
    image, view, latents = views
    ids = np.asarray(ids, np.int32)
    padded = pad_batch(image, latents.astype(np.int32), ids, size)
    return {**padded, "view": pad_batch(view, latents, ids, size)["image"]}
