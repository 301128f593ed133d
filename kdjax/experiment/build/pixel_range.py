"""Checks that pixels, and the mean and std that normalise them, are in the same range."""

from collections.abc import Sequence

from kdjax.errors import UserError
from kdjax.experiment.config.schema import Data
from kdjax.types import Spec

_OTHER_RANGE = 50.0  # times the sd, beyond which images are stored in another range


def normalised(spec: Spec, table: Data) -> Spec:
    """Return the spec with the mean and std of a config instead of the training split's.

    Raises:
      UserError: another number of channels, or numbers of pixels in another range.
    """
    for key in ("mean", "std"):
        values = getattr(table, key)
        if values is None:
            continue
        if len(values) != spec.shape[-1] or (key == "std" and not all(v > 0 for v in values)):
            raise UserError(
                f"data.{key} is {tuple(values)}; it must have {spec.shape[-1]} numbers, one per "
                f"channel{', all > 0' if key == 'std' else ''}"
            )
        if spec.scale != 1 and max(map(abs, values)) > 1:
            raise UserError(
                f"data.{key} is {tuple(values)}; pixels are divided by {spec.scale:g} first, so "
                "give numbers up to 1"
            )
        if key == "mean":
            _check_mean(values, spec)
        spec = spec._replace(**{key: tuple(float(value) for value in values)})
    return spec


def check_same_range(own: Spec, other: Spec) -> None:
    """Refuse images whose pixels are of another order of magnitude, such as 0..255 and 0..1.

    Raises:
      UserError: with the means and standard deviations.
    """
    for mean, std, new_mean, new_std in zip(own.mean, own.std, other.mean, other.std, strict=True):
        ratio = max(abs(new_mean - mean) / std, new_std / std, std / new_std)
        if ratio > _OTHER_RANGE:
            raise UserError(
                f"the images of --config.data have mean {new_mean:.3g} and sd {new_std:.3g}, but "
                f"those of the run {mean:.3g} and {std:.3g}; store both in the same range"
            )


def _check_mean(values: Sequence[float], spec: Spec) -> None:
    """Refuse a mean of pixels in another range than those of the training split."""
    if any(
        abs(v - m) > _OTHER_RANGE * s for v, m, s in zip(values, spec.mean, spec.std, strict=True)
    ):
        raise UserError(
            f"data.mean is {tuple(values)}, far from the mean of the training pixels, "
            f"{tuple(round(m, 4) for m in spec.mean)}; give it in the same range, or leave it out"
        )
