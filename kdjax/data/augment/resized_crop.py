"""Random resized crops inside the compiled step, as for ImageNet networks.

The host cannot crop, because the crops differ between sweep members and epochs, and images of
several sizes have no static shape. The host therefore resizes each image to one square, the
*canvas*, without preserving its aspect ratio, and passes the true size. A box of the image is a box
of its canvas with different scales on the two axes; resampling to the network's input inverts the
scales. No pixels are cut off or padded. The cost is a second interpolation: details finer than the
canvas are lost, so crops smaller than about half of an image are slightly blurrier than crops of
the original.

A box is (top, left, height, width) in fractions of the image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

AREA = (0.08, 1.0)  # of the crop, as a fraction of the picture; Szegedy et al. 2014 (1409.4842)
ASPECT = (3 / 4, 4 / 3)  # of the crop, width / height in true pixels; the same
_ATTEMPTS = 10  # number of tries; the first that fits is used, as in the common implementations


def random_boxes(key: Array, sizes: Array) -> Array:
    """Sample one crop for each image: area uniform, aspect log-uniform, position uniform.

    w = sqrt(area W H aspect), h = sqrt(area W H / aspect). The first of ten samples with w <= W and
    h <= H is used; if none fits, the largest central box of an allowed aspect.

    Args:
        key: [batch], one for each image; consumed.
        sizes: [batch, 2], true heights and widths.

    Returns:
        [batch, 4] float32, fractions of the image.

    Source: Szegedy et al. 2014 (arXiv 1409.4842), section 6; ten draws are a convention.
    """
    return jax.vmap(_random_box)(key, _aspects(sizes))


def _random_box(key: Array, picture: Array) -> Array:
    draws = jax.random.uniform(key, (_ATTEMPTS, 4))
    area = AREA[0] + (AREA[1] - AREA[0]) * draws[:, 0]
    low, high = jnp.log(jnp.array(ASPECT))
    aspect = jnp.exp(low + (high - low) * draws[:, 1]) / picture
    extent = jnp.sqrt(jnp.stack([area / aspect, area * aspect], axis=1))  # height, width
    fits = jnp.all(extent <= 1, axis=1)
    chosen = jnp.argmax(fits)
    fallback = _largest(jnp.clip(picture, *ASPECT) / picture)
    extent = jnp.where(fits[chosen], extent[chosen], fallback)
    place = jnp.where(fits[chosen], draws[chosen, 2:], 0.5)
    return jnp.concatenate([place * (1 - extent), extent])


def central_boxes(sizes: Array, shape: Sequence[int], crop: float) -> Array:
    """Return the boxes of central crops: shorter side resized to n / crop, then the central n x n.

    Args:
        sizes: [batch, 2], true heights and widths.
        shape: (height, width, ...) of the result.
        crop: a fraction in (0, 1], commonly .875.

    Returns:
        [batch, 4] float32, fractions of the image.
    """
    relative = shape[1] / shape[0] / _aspects(sizes)
    extent = crop * jax.vmap(_largest)(relative)
    return jnp.concatenate([(1 - extent) / 2, extent], axis=1)


def resample(images: Array, boxes: Array, shape: Sequence[int]) -> Array:
    """Crop a box of each canvas and resize it to one shape, bilinearly with antialiasing.

    The triangle filter is as wide as an output pixel (when enlarging, an input pixel). As in
    Pillow's `resize(box=...)`, it uses pixels beyond the box but not beyond the image.

    Args:
        images: [batch, height, width, channel].
        boxes: [batch, 4].
        shape: (height, width, ...) of the result.

    Returns:
        [batch, shape[0], shape[1], channel] float32, in the units of `images`, not rounded.
    """
    source, target = (jnp.array(s[:2], jnp.float32) for s in (images.shape[1:], shape))

    def resample_one(image: Array, box: Array) -> Array:
        scale = target / (box[2:] * source)
        return jax.image.scale_and_translate(
            image.astype(jnp.float32),
            (shape[0], shape[1], image.shape[-1]),
            (0, 1),
            scale,
            -box[:2] * source * scale,
            "linear",
            antialias=True,
        )

    return jax.vmap(resample_one)(images, boxes)


def resized_crop_flip(
    images: Array,
    key: Array,
    *,
    shape: Sequence[int],
    sizes: Array | None = None,
    ids: Array | None = None,
) -> Array:
    """Crop a random box of every image, resize it, and mirror half of them.

    Box and mirror depend only on the key and on the example's id, so the augmentation of a batch
    is equal on one device and on several.

    Args:
        images: [batch, height, width, channel], canvases, any dtype.
        key: consumed.
        shape: (height, width, ...) of the result.
        sizes: int [batch, 2], true heights and widths; by default those of `images`.
        ids: int32 [batch], by default the position in the batch.

    Returns:
        [batch, shape[0], shape[1], channel] float32, in the units of `images`.

    Raises:
        ValueError: unless images has four axes.
    """
    if images.ndim != 4:
        raise ValueError(f"images {images.shape} must be [batch, height, width, channel]")
    batch = images.shape[0]
    ids = jnp.arange(batch) if ids is None else ids
    sizes = jnp.broadcast_to(jnp.array(images.shape[1:3]), (batch, 2)) if sizes is None else sizes
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(ids)
    mirrored = jax.vmap(jax.random.bernoulli)(keys[:, 1])[:, None, None, None]
    crops = resample(images, random_boxes(keys[:, 0], sizes), shape)
    return jnp.where(mirrored, crops[:, :, ::-1], crops)


def _aspects(sizes: Array) -> Array:
    """Return width / height."""
    sizes = jnp.asarray(sizes, jnp.float32)
    return sizes[:, 1] / sizes[:, 0]


def _largest(relative: Array) -> Array:
    """Return height and width, in fractions, of the largest box of an aspect over the image's."""
    return jnp.stack([jnp.minimum(1.0, 1 / relative), jnp.minimum(1.0, relative)])
