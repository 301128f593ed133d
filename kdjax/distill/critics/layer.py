"""What critics ask of the features that they look at."""

from kdjax.types import Outputs, UserError


def feature_width(outputs: Outputs, layer: str, critic: str) -> int:
    """Width of a layer that must be [batch, features]; `critic` begins the error.

    Raises:
      UserError: no such layer, or one of another rank.
    """
    if layer not in outputs.features:
        known = ", ".join(sorted(outputs.features)) or "none"
        raise UserError(f"no layer {layer!r} for {critic}; there are {known}")
    shape = outputs.features[layer].shape
    if len(shape) != 2:
        raise UserError(f"{critic} reads [batch, features], but layer {layer!r} is {shape}")
    return shape[1]
