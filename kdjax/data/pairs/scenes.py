"""Pairs of other kinds: two views of a scene, two halves of a face, synthetic categories."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kdjax.data.images.tfds import open_split
from kdjax.data.options import PairOptions, SplitOptions
from kdjax.data.pairs import omniglot
from kdjax.data.pairs.dataset import SPLITS, Draw, Keys, PairSet, Views, parts
from kdjax.errors import UserError

SCENE = ("label_floor_hue", "label_wall_hue", "label_object_hue", "label_scale", "label_shape")
SHAPES = (10, 10, 10, 8, 4, 15)  # values of these and of the orientation
SIZE = 64  # pixels, unless tile_size is set
_RENDER = 0xB2  # stream of the fixed random features
GetPicture = Callable[[int], np.ndarray]  # row -> uint8 [height, width, channel]


def synthetic_pairs(options: PairOptions, seed: int) -> PairSet:
    """Render d = `tiles` factors of l = `characters` (10) values by fixed random features.

    The first view shows z, the second (z + 1) mod l. Each value of each factor has a separate
    random pattern in each view; an image is the tanh of the sum of its patterns. Different z give
    different images, so the mutual information is d ln l.

    Raises:
        UserError: no factor, or fewer than two values.
    """
    d, size = options.tiles, 10 if options.characters is None else options.characters
    if d < 1 or size < 2:
        raise UserError(
            f"data.tiles is {d} and data.characters {size}; pairs_synthetic needs one factor or "
            "more, of two values or more"
        )
    side = options.tile_size or 8
    generator = np.random.default_rng((seed, _RENDER))
    patterns = generator.normal(size=(2, d, size, side * side)).astype(np.float32)

    def draw(generator: np.random.Generator, n: int) -> Keys:
        return generator.integers(0, size, (n, d))

    def make(z: Keys) -> Views:
        views = []
        for pattern, values in zip(patterns, (z, (z + 1) % size), strict=True):
            total = pattern[np.arange(d), values].sum(1) / math.sqrt(d)  # [n, side^2]
            pixels = np.rint(127.5 + 127.5 * np.tanh(total)).astype(np.uint8)
            views.append(pixels.reshape(-1, side, side, 1))
        return views[0], views[1], z

    draws: dict[str, Draw] = dict.fromkeys(SPLITS, draw)
    return PairSet("pairs_synthetic", draws, make, (size,) * d, d * math.log(size), size**d)


def multiview(
    get: GetPicture,
    latents: np.ndarray,
    sizes: tuple[int, ...],
    options: PairOptions,
    splitting: SplitOptions,
) -> PairSet:
    """Pair two images of one scene that differ only in the last factor, the orientation.

    Scenes are divided over the splits. If the set has every scene in every orientation, the mutual
    information is that of the scene, ln(number of scenes of the test split), plus ln(k / (k - 1))
    for k orientations, since the second orientation differs from the first.

    Args:
        get: an image by row.
        latents: int [n, factors] of all images, the orientation last.
        sizes: values of each factor.
        options: `tile_size` is the side of a view.
        splitting: divides the scenes.

    Raises:
        UserError: no scene has two images.
    """
    scene = np.asarray(np.ravel_multi_index(tuple(latents[:, :-1].T), sizes[:-1]))
    order = np.argsort(scene, kind="stable")
    scenes, starts, counts = np.unique(scene[order], return_index=True, return_counts=True)
    usable = np.flatnonzero(counts > 1)
    if not len(usable):
        raise UserError("shapes3d: no scene is there in two orientations; prepare the whole set")
    positions = parts(len(usable), splitting, "shapes3d: its scenes")
    complete = len(scenes) == math.prod(sizes[:-1]) and (counts == sizes[-1]).all()
    information = math.log(len(positions["test"]) * sizes[-1] / (sizes[-1] - 1))
    side = options.tile_size or SIZE

    def draw(split: str) -> Draw:
        groups = usable[positions[split]]

        def keys(generator: np.random.Generator, n: int) -> Keys:
            group = generator.choice(groups, n)
            count = counts[group]
            first = (generator.random(n) * count).astype(int)
            other = (first + 1 + (generator.random(n) * (count - 1)).astype(int)) % count
            return order[starts[group][:, None] + np.stack([first, other], axis=1)]

        return keys

    def make(keys: Keys) -> Views:
        x, y = (np.stack([_sized(get(row), side) for row in rows]) for rows in keys.T)
        return x, y, latents[keys[:, 0]]

    examples = int(counts[usable[positions["train"]]].sum())
    draws = {split: draw(split) for split in SPLITS}
    pairs = PairSet("shapes3d", draws, make, sizes, information if complete else None, examples)
    return pairs._replace(stored={"latents": latents})


def shapes3d(options: PairOptions, splitting: SplitOptions) -> PairSet:
    """Return MultiviewShapes3D from a prepared tfds `shapes3d`; see `multiview`.

    All 480,000 images are decoded once for their labels, which takes minutes.

    Raises:
        UserError: tfds has not prepared it.
    """
    source = open_split("shapes3d", options.path, "train")
    keys = (*SCENE, "label_orientation")
    rows = (source[row] for row in range(len(source)))  # without TensorFlow all entries are decoded
    latents = np.array([[int(row[key]) for key in keys] for row in rows])
    return multiview(partial(_picture, source), latents, SHAPES, options, splitting)


def halves(
    get: dict[str, tuple[GetPicture, np.ndarray]], factors: int, options: PairOptions
) -> PairSet:
    """Pair the left and the right half of an image; its binary attributes are the factors.

    Args:
        get: by split, an image by row, and the attributes int [n, factors].
        factors: number of attributes.
        options: `tile_size` is the side of the full image, even.

    Raises:
        UserError: an odd side.
    """
    side = options.tile_size or SIZE
    if side % 2:
        raise UserError(f"data.tile_size is {side}; it must be even: a picture has two halves")
    order = list(get)

    def draw(split: str) -> Draw:
        size = len(get[split][1])

        def keys(generator: np.random.Generator, n: int) -> Keys:
            return np.stack([np.full(n, order.index(split)), generator.integers(0, size, n)], 1)

        return keys

    def make(keys: Keys) -> Views:
        chosen = [(*get[order[split]], row) for split, row in keys]
        pictures = np.stack([_sized(picture(row), side) for picture, _, row in chosen])
        latents = np.stack([attributes[row] for _, attributes, row in chosen])
        return pictures[:, :, : side // 2], pictures[:, :, side // 2 :], latents

    draws = {split: draw(split) for split in SPLITS}
    pairs = PairSet("celeb_a", draws, make, (2,) * factors, None, len(get["train"][1]))
    return pairs._replace(stored={split: attributes for split, (_, attributes) in get.items()})


def celeb_a(options: PairOptions) -> PairSet:
    """Return SplitCelebA from a prepared tfds `celeb_a`: 40 attributes; see `halves`.

    All images are decoded once for their labels, which takes minutes.

    Raises:
        UserError: tfds has not prepared it.
    """
    pictures = {}
    for split in SPLITS:
        source = open_split("celeb_a", options.path, split)
        rows = [source[row]["attributes"] for row in range(len(source))]
        names = sorted(rows[0])
        attributes = np.array([[int(row[name]) for name in names] for row in rows])
        pictures[split] = (partial(_picture, source), attributes)
    return halves(pictures, pictures["train"][1].shape[1], options)


def _picture(source: Any, row: int) -> np.ndarray:
    return np.asarray(source[int(row)]["image"])


def _sized(picture: np.ndarray, side: int) -> np.ndarray:
    return picture if picture.shape[:2] == (side, side) else omniglot.resized(picture, side)
