"""RoIAlign over a pyramid (arXiv 1703.06870, section 3): features of fixed size for any box.

Each box is divided into bins, and a bin's value is the mean of RATIO^2 points, interpolated
bilinearly from the level for the box's size. Features receive gradients, boxes do not.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.models.detection.boxes import areas
from kdjax.types import Array

RATIO = 2  # points for each bin and axis
TILE = 8  # pixels per side of a tile, to which the CPU's gradient is added at once
CANONICAL = 224.0  # pixels: the size of a box read from the level of stride 16 (arXiv 1612.03144)


def levels_of(
    boxes: Array, strides: Sequence[int], *, canonical: float = CANONICAL, stride: int = 16
) -> Array:
    """Choose the level of each box [..., 4] by its size, int32 [...] (FPN's equation 1).

        floor(log2(stride / strides[0]) + log2(sqrt(area) / canonical)), clipped to the levels

    Args:
      boxes: in pixels.
      strides: of the levels, each twice the previous one.
      canonical: the size in pixels of boxes at the level of `stride`.
      stride: of that level.
    """
    size = jnp.sqrt(jnp.maximum(areas(boxes), 1e-6))  # no area: the finest level
    first = jnp.log2(jnp.float32(stride / strides[0]))
    level = jnp.floor(first + jnp.log2(size / canonical) + 1e-6)
    return jnp.clip(level, 0, len(strides) - 1).astype(jnp.int32)


def roi_align(
    features: Sequence[Array],
    boxes: Array,
    levels: Array,
    *,
    strides: Sequence[int],
    bins: int = 7,
) -> Array:
    """Read boxes of one image from its pyramid.

    Pixel i of a map covers [i, i + 1) times the stride, with its centre in the middle (the aligned
    variant). Points up to one pixel outside of a map have the value at its edge, points further
    outside 0. On the CPU the gradient cannot be differentiated again in reverse mode.

    Args:
      features: by level [height, width, channel], fine to coarse.
      boxes: [n, 4] in pixels of the image.
      levels: int [n], the level that each box is read from.
      strides: pixels of the image between the pixels of each level.
      bins: per side.

    Returns:
      [n, bins, bins, channel], rows first.
    """
    sizes = tuple((int(f.shape[0]), int(f.shape[1])) for f in features)
    geometry = (sizes, tuple(strides), bins, jnp.dtype(features[0].dtype))
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    if jax.default_backend() != "cpu":
        return _read(geometry, tuple(features), boxes, levels)
    return _read_and_tile(geometry, tuple(features), boxes, levels)


def _points(low: Array, high: Array, stride: Array, length: Array, bins: int) -> tuple[Array, ...]:
    """Return two neighbours [n, bins * RATIO] of every point on one axis, and their weights."""
    start, end = low / stride - 0.5, high / stride - 0.5
    share = (jnp.arange(bins * RATIO) + 0.5) / (bins * RATIO)
    points = start[:, None] + share * (end - start)[:, None]
    last = (length - 1)[:, None]
    inside = (points >= -1) & (points <= length[:, None])
    points = jnp.clip(points, 0, last)
    first = jnp.clip(jnp.floor(points).astype(jnp.int32), 0, last)  # NaN becomes an integer
    second = jnp.minimum(first + 1, last)
    weight = points - first
    return first, second, jnp.where(inside, 1 - weight, 0.0), jnp.where(inside, weight, 0.0)


def _axes(geometry, boxes: Array, levels: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return `_points` of both axes, rows and columns."""
    sizes, strides, bins, _ = geometry
    stride = jnp.asarray(strides, jnp.float32)[levels]
    height, width = (jnp.asarray([size[axis] for size in sizes])[levels] for axis in (0, 1))
    rows = _points(boxes[:, 1], boxes[:, 3], stride, height, bins)
    return rows, _points(boxes[:, 0], boxes[:, 2], stride, width, bins)


def _read(geometry, features: tuple[Array, ...], boxes: Array, levels: Array) -> Array:
    """Read 4 neighbours of RATIO^2 points per bin, gathered from all levels concatenated."""
    sizes, _, bins, _ = geometry
    starts = [sum(h * w for h, w in sizes[:level]) for level in range(len(sizes))]
    flat = jnp.concatenate([f.reshape(-1, f.shape[-1]) for f in features])
    start = jnp.asarray(starts)[levels][:, None, None]
    width = jnp.asarray([w for _, w in sizes])[levels][:, None, None]
    rows, columns = _axes(geometry, boxes, levels)
    total = jnp.zeros((boxes.shape[0], bins, bins, flat.shape[-1]), jnp.float32)
    for row, row_weight in (rows[0::2], rows[1::2]):
        for column, column_weight in (columns[0::2], columns[1::2]):
            for a in range(RATIO):
                for b in range(RATIO):  # gathers of [n, bins, bins], one at a time, save memory
                    index = start + row[:, a::RATIO, None] * width + column[:, None, b::RATIO]
                    weight = row_weight[:, a::RATIO, None] * column_weight[:, None, b::RATIO]
                    total = total + flat[index] * weight[..., None]
    return total / RATIO**2


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read_and_tile(geometry, features: tuple[Array, ...], boxes: Array, levels: Array) -> Array:
    """Apply `_read`, with a gradient added by tiles: XLA's scatter on a CPU adds single rows."""
    return _read(geometry, features, boxes, levels)


def _forward(geometry, features, boxes, levels):
    return _read(geometry, features, boxes, levels), (boxes, levels)


def _backward(geometry, residuals, gradient: Array):
    boxes, levels = residuals
    # one image at a time, because the number of iterations depends on its tiles
    transpose = jax.custom_batching.sequential_vmap(functools.partial(_transpose, geometry))
    return transpose(gradient, boxes, levels), jnp.zeros_like(boxes), None


def _transpose(geometry, gradient: Array, boxes: Array, levels: Array) -> tuple[Array, ...]:
    """Apply the transpose of `_read`; returns [height, width, channel] by level.

    One canvas holds all levels, one below the other. Tiles cover the pixels that a box reads, and
    each iteration adds the gradient of one box to one tile by two small products.
    """
    sizes, _, bins, dtype = geometry
    starts = [sum(h for h, _ in sizes[:level]) for level in range(len(sizes))]
    start = jnp.asarray(starts)[levels][:, None]
    (first, second, *weights), columns = _axes(geometry, boxes, levels)
    rows = (first + start, second + start, *weights)
    (top, down), (left, across) = _tiles(rows), _tiles(columns)
    ends = jnp.cumsum(down * across)
    channels = gradient.shape[-1]
    shape = (sum(h for h, _ in sizes) + TILE, max(w for _, w in sizes) + TILE, channels)

    def add(iteration: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        canvas, box = carry
        box = box + (iteration >= ends[box])
        tile = iteration - (ends[box] - down[box] * across[box])
        y = top[box] + TILE * (tile // across[box])
        x = left[box] + TILE * (tile % across[box])
        by_row, by_column = _weights(rows, box, y, bins), _weights(columns, box, x, bins)
        tall = jnp.dot(by_row.T, gradient[box].reshape(bins, -1)).reshape(TILE, bins, channels)
        corner = (y, x, jnp.int32(0))
        before = jax.lax.dynamic_slice(canvas, corner, (TILE, TILE, channels))
        after = before + jnp.einsum("qx,yqc->yxc", by_column, tall)
        return jax.lax.dynamic_update_slice(canvas, after, corner), box

    empty = (jnp.zeros(shape, gradient.dtype), jnp.int32(0))
    canvas, _ = jax.lax.fori_loop(0, ends[-1], add, empty)
    return tuple(
        canvas[start : start + h, :w].astype(dtype)
        for start, (h, w) in zip(starts, sizes, strict=True)
    )


def _tiles(points: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return the first pixel that each box reads on one axis and its number of tiles, int32 [n]."""
    low, high = points[0].min(axis=1), points[1].max(axis=1)
    return low, (high - low) // TILE + 1


def _weights(points: tuple[Array, ...], box: Array, start: Array, bins: int) -> Array:
    """Return the weights of a tile's pixels in each bin of a box on one axis, [bins, TILE]."""
    first, second, low, high = (each[box][:, None] for each in points)
    pixels = start + jnp.arange(TILE)
    weights = (first == pixels) * low + (second == pixels) * high
    return weights.reshape(bins, RATIO, TILE).mean(axis=1)


_read_and_tile.defvjp(_forward, _backward)
