"""A synthetic set: one smooth pattern per class with noise, for tests and dry runs."""

import numpy as np

from kdjax.data.images.in_memory import ImageSet, Pair
from kdjax.errors import UserError

_COARSE = 4  # a 4 x 4 grid of patterns: convolutions and linear models can both learn them
_SIGNAL, _NOISE = (
    45.0,
    40.0,
)  # grey levels; a linear model learns nearly all examples, but not at once


def synthetic(
    shape: tuple[int, ...] = (8, 8, 1),
    num_classes: int = 10,
    *,
    seed: int = 0,
    num_train: int = 1024,
    num_test: int = 256,
) -> ImageSet:
    """Return uint8 images of any shape (height, width, channel), balanced over the classes.

    Every class has at least two training examples and one test example.

    Raises:
        UserError: on a shape that is not three positive numbers, or fewer than two classes.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"data.shape is {tuple(shape)}; it must be (height, width, channel)")
    if num_classes < 2:
        raise UserError(f"data.num_classes is {num_classes}; it must be >= 2")
    rng = np.random.default_rng((seed, 0xB10B))
    coarse = rng.normal(size=(num_classes, _COARSE, _COARSE, shape[2])).astype(np.float32)
    rows = np.arange(shape[0]) * _COARSE // shape[0]
    columns = np.arange(shape[1]) * _COARSE // shape[1]
    patterns = coarse[:, rows][:, :, columns]

    def draw(count: int) -> Pair:
        label = rng.permutation(np.arange(count) % num_classes).astype(np.int32)
        noise = rng.standard_normal((count, *shape), np.float32)
        image = 127.5 + _SIGNAL * patterns[label] + _NOISE * noise
        return Pair(np.clip(np.rint(image), 0, 255).astype(np.uint8), label)

    train = draw(max(num_train, 2 * num_classes))
    test = draw(max(num_test, num_classes))
    names = tuple(f"class {index}" for index in range(num_classes))
    return ImageSet("synthetic", train, test, None, num_classes, names, 255.0)
