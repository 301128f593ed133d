"""Small networks of VID and factor transfer, between the feature maps of two players."""

import jax
from flax import linen as nn

from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import Mode, conv_norm


class Regressor(nn.Module):
    """Three 1x1 convolutions without bias, ReLU between them, to `width` channels each."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, channel] to the teacher's channels."""
        for index in (1, 2):
            x = nn.relu(Conv(self.width, (1, 1), name=f"conv{index}")(x))
        return Conv(self.width, (1, 1), name="conv3")(x)


class Translator(nn.Module):
    """Three 3x3 convolutions, each with batch norm and a leaky ReLU, to `widths` channels."""

    widths: tuple[int, int, int]
    train: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [batch, height, width, channel] to factors [batch, height, width, widths[2]]."""
        mode = Mode(self.train, None, None)
        for index, width in enumerate(self.widths, start=1):
            x = nn.leaky_relu(conv_norm(width, mode, (f"conv{index}", f"bn{index}"))(x), 0.1)
        return x


class Paraphraser(nn.Module):
    """An autoencoder of a teacher's map: a translator to `factors` channels, and one back."""

    factors: int
    train: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the factors and the reconstruction of [batch, height, width, channel]."""
        width, k = x.shape[-1], self.factors
        factors = Translator((width, k, k), self.train, name="encoder")(x)
        return factors, Translator((k, width, width), self.train, name="decoder")(factors)
