"""Corrupted images, to measure accuracy and calibration away from the training data.

Four kinds at three levels, after the idea of Hendrycks and Dietterich 2019 (ICLR), with strengths
of our own for small images. All functions are pure; the corruption of an image depends on the key,
the code and its id alone.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

KINDS = ("noise", "blur", "contrast", "rotation")
LEVELS = (1, 2, 3)
CODES = {f"{kind}_{level}": 3 * i + level for i, kind in enumerate(KINDS) for level in LEVELS}


def corrupt(images: Array, code: Array, ids: Array, key: Array) -> Array:
    """Corrupt images by the kind and level of a code.

    Noise: normal, sd .05, .1, .2. Blur: Gaussian, sd .5, 1, 2 pixels. Contrast: differences to the
    image's mean times .6, .4, .2. Rotation: by 10, 20, 30 degrees, half of the images clockwise,
    with black corners.

    Args:
      images: [batch, height, width, channel], between 0 and 1.
      code: [], a value of `CODES`; 0 leaves the images as they are.
      ids: [batch], the numbers of the examples.
      key: of the noise and of the directions of rotations.

    Returns:
      [batch, height, width, channel], float32 between 0 and 1.
    """
    kinds = (lambda x, level, key: x, _noise, _blur, _contrast, _rotation)
    branches = [jax.vmap(kind, in_axes=(0, None, 0)) for kind in kinds]
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.fold_in(key, number), code))(ids)
    kind, level = (code + 2) // 3, (code + 2) % 3
    corrupted = jax.lax.switch(kind, branches, images.astype(jnp.float32), level, keys)
    return jnp.clip(corrupted, 0.0, 1.0)


def _noise(image: Array, level: Array, key: Array) -> Array:
    return image + jnp.array([0.05, 0.1, 0.2])[level] * jax.random.normal(key, image.shape)


def _blur(image: Array, level: Array, key: Array) -> Array:
    """Weight neighbours by exp(-d^2 / 2 sd^2) along both axes; borders repeat the last pixel."""
    spread = jnp.array([0.5, 1.0, 2.0])[level]
    offsets = jnp.arange(-6, 7)
    weights = jax.nn.softmax(-0.5 * (offsets / spread) ** 2)
    for axis in (0, 1):
        places = jnp.arange(image.shape[axis])[:, None] + offsets
        rows = jnp.take(image, places.clip(0, image.shape[axis] - 1), axis=axis)
        image = jnp.tensordot(rows, weights, axes=((axis + 1,), (0,)))
    return image


def _contrast(image: Array, level: Array, key: Array) -> Array:
    mean = image.mean()
    return mean + jnp.array([0.6, 0.4, 0.2])[level] * (image - mean)


def _rotation(image: Array, level: Array, key: Array) -> Array:
    sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
    angle = sign * jnp.deg2rad(jnp.array([10.0, 20.0, 30.0])[level])
    rows, columns = (jnp.arange(size) - (size - 1) / 2 for size in image.shape[:2])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y = cos * rows[:, None] - sin * columns + (image.shape[0] - 1) / 2
    x = sin * rows[:, None] + cos * columns + (image.shape[1] - 1) / 2
    return jax.vmap(
        lambda channel: map_coordinates(channel, [y, x], order=1), in_axes=-1, out_axes=-1
    )(image)
