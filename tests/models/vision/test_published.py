"""Averages over cells as PyTorch's, and layers of torchvision's and timm's networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.models.vision.published import adaptive_average


@pytest.mark.parametrize("size", [1, 5, 7, 14, 17])
def test_adaptive_averages_by_hand(size):
    x = np.random.default_rng(size).normal(size=(2, size, size + 3, 3)).astype(np.float32)
    actual = adaptive_average(jnp.asarray(x), 7)
    for i in range(7):
        rows = slice(i * size // 7, -(-(i + 1) * size // 7))
        for j in range(7):
            columns = slice(j * (size + 3) // 7, -(-(j + 1) * (size + 3) // 7))
            right = x[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(actual[:, i, j], right, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vgg16_bn", {"stem": 112, "stage4": 7}),
        ("mobilenet_v2", {"stem": 112, "stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}),
        ("resnet10t", {"stem": 56, "stage1": 56, "stage4": 7}),
    ],
)
def test_maps_of_an_image_of_224_pixels(name, sizes):
    model = models.build(name, num_classes=3)
    batch = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)}
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    features = jax.eval_shape(lambda v: model.apply(v, batch_of(batch), train=False)[0], variables)
    for layer, size in sizes.items():
        assert features.features[layer].shape[1:3] == (size, size)


def batch_of(shapes):
    return {key: jnp.zeros(x.shape, x.dtype) for key, x in shapes.items()}
