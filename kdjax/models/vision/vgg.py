"""VGG networks with batch norm for small images, after Simonyan and Zisserman (arXiv 1409.1556)."""

from typing import Any

import jax
from flax import linen as nn

from kdjax.errors import UserError
from kdjax.models.layers.conv import Conv
from kdjax.models.layers.layers import Mode, batch_norm, classify, halve
from kdjax.types import Outputs

_WIDTHS = (64, 128, 256, 512, 512)
# Convolutions in each of the five blocks; depth 8 is the shortened net of the distillation papers.
_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class Vgg(nn.Module):
    """Five blocks of 3x3 convolutions with bias, batch norm and ReLU; see `vgg`."""

    num_classes: int
    depth: int
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
        """Map [batch, height, width, channel] to logits and the features listed in `vgg`."""
        if x.ndim == 4 and min(x.shape[1:3]) < 8:
            size = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(f"vgg{self.depth} cannot take {size} images: use at least 8x8")
        mode = Mode(train, self.axis_name, self.dtype)
        halvings = 4 if min(x.shape[1:3]) >= 64 else 3
        features = {}
        for stage, (width, count) in enumerate(
            zip(_WIDTHS, _CONVOLUTIONS[self.depth], strict=True)
        ):
            before = x
            for index in range(count):
                # Numbered as in a sequence of convolution, batch norm and ReLU.
                names = (f"block{stage}_{3 * index}", f"block{stage}_{3 * index + 1}")
                conv = Conv(width, use_bias=True, dtype=self.dtype, name=names[0])
                before = batch_norm(mode, names[1])(conv(x))
                x = nn.relu(before)
            features |= {f"stage{stage}_pre": before, f"stage{stage}": x} if stage else {"stem": x}
            if stage < halvings:
                x = halve(x)
        return classify(x, self.num_classes, features)


def vgg(*, num_classes: int, depth: int, dtype: Any = None, axis_name: str | None = None) -> Vgg:
    """Build a VGG of depth 8, 11, 13, 16 or 19, with average pooling and one linear layer.

    A 2x2 max-pool follows each of the first three blocks (the first four from 64 pixels on).
    Features: "stem" (the first block), "stage1" to "stage4" (each after its last ReLU, before its
    pool), "stage1_pre", ... (the same before that ReLU), "pooled" [batch, 512].

    Raises:
      UserError: another depth, or (by init and apply) images below 8 pixels.
    """
    if depth not in _CONVOLUTIONS:
        raise UserError(f"vgg: depth is {depth}: use one of {', '.join(map(str, _CONVOLUTIONS))}")
    return Vgg(num_classes, depth, dtype, axis_name)
