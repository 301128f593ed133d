"""Confidence of an exported network on training and test images.

    python benchmarks/confidence.py teachers/resnet56 cifar10_jpeg_5k.npz

Prints accuracy, mean confidence, and mean confidence at a temperature, for the first 1,000 images
of each split of an .npz file.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models.io import export as model_export

IMAGES, BATCH = 1000, 250


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", type=Path, help="a folder written by import or export")
    parser.add_argument("images", type=Path, help="x_train, y_train, x_test, y_test")
    parser.add_argument("--temperature", type=float, default=4.0)
    args = parser.parse_args()
    model, variables, config = model_export.restore(args.network)
    mean, std = np.array(config["mean"]), np.array(config["std"])
    apply = jax.jit(lambda x: model.apply(variables, {"image": x}, train=False)[0].logits)
    print(f"| split | accuracy % | confidence % | at T = {args.temperature:g} |")
    print("|---|---:|---:|---:|")
    with np.load(args.images) as data:
        for split in ("train", "test"):
            image = (data[f"x_{split}"][:IMAGES] / config["scale"] - mean) / std
            label = data[f"y_{split}"][:IMAGES]
            parts = np.split(image.astype(np.float32), range(BATCH, len(image), BATCH))
            z = np.concatenate([np.asarray(apply(jnp.asarray(part))) for part in parts])
            right = np.mean(z.argmax(-1) == label)
            sure = [float(jax.nn.softmax(z / t).max(-1).mean()) for t in (1.0, args.temperature)]
            print(f"| {split} | {100 * right:.1f} | {100 * sure[0]:.1f} | {100 * sure[1]:.1f} |")


if __name__ == "__main__":
    main()
