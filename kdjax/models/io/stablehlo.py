"""Exports of networks as StableHLO: one file that JAX runs without kdjax or Flax."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from kdjax.errors import UserError
from kdjax.models.io import export as model_export
from kdjax.types import Array, Batch, Model, Variables

NAME = "model.stablehlo"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(folder: Path) -> Path:
    """Write model.stablehlo, for batches of any size, into the folder of an export.

    The function in the file takes images as stored, [batch, height, width, channel], or a dict of
    token ids of the greatest length. It returns probabilities at the fitted temperature, [batch,
    classes], or the values of a regression. The file contains the weights.

    Returns:
      The path of the file.

    Raises:
      UserError: flatbuffers is not installed; a detector, an encoder of pairs or a language model;
        a network that depends on the size of its batch.
    """
    if importlib.util.find_spec("flatbuffers") is None:  # jax.export uses it
        raise UserError("stablehlo needs the package flatbuffers: pip install 'kdjax[stablehlo]'")
    model, variables, metadata = model_export.restore(folder)
    if metadata.get("latents") or metadata.get("task") in (
        model_export.DETECTION,
        model_export.LANGUAGE_MODEL,
    ):
        raise UserError(
            "stablehlo is for classifiers and regressions; export this network in another form"
        )
    (batch,) = jax_export.symbolic_shape("batch")
    inputs, is_text = metadata.get("inputs"), bool(metadata.get("inputs"))
    pixels = "uint8" if metadata.get("scale") == 255 else "float32"
    shapes = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype)
        for name, (shape, dtype) in (inputs or {"image": (metadata["shape"], pixels)}).items()
    }
    predict = jax.jit(_predictor(model, variables, metadata))
    try:
        arguments = shapes if is_text else shapes["image"]
        exported = jax_export.export(predict, platforms=_PLATFORMS)(arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{metadata['model']['name']} cannot be exported for batches of any size ({reason}); "
            "take the size from x.shape, not from len(x)"
        ) from error
    path = Path(folder) / NAME
    path.write_bytes(exported.serialize())
    return path


def _predictor(model: Model, variables: Variables, metadata: Mapping[str, Any]) -> Any:
    temperature = float(metadata.get("temperature") or 1.0)

    def predict(inputs: Any) -> Array:
        batch: Batch = inputs
        if not metadata.get("inputs"):
            mean, std = (jnp.asarray(metadata[key], jnp.float32) for key in ("mean", "std"))
            image = (inputs.astype(jnp.float32) / jnp.float32(metadata["scale"]) - mean) / std
            batch = {"image": image}
        logits = model.apply(variables, batch, train=False)[0].logits
        return logits if logits.shape[1] == 1 else jax.nn.softmax(logits / temperature)

    return predict
