"""Cost of a training step of a small BERT compared with PyTorch.

    python benchmarks/transformer.py [--repeats 15] [--dropout 0.1] [--dtype bfloat16]
        [--layers 4] [--width 256] [--heads 4] [--batch 32] [--length 128]

A vocabulary of 30,522, cross-entropy of two classes, AdamW. PyTorch (in the extra `bench`) runs the
plain module of `torch_bert.py` with its fused attention, eager. Calls are interleaved. The script
prints medians in milliseconds, their ratio (PyTorch / kdjax), and the difference of the first loss
from the same weights without dropout. Without PyTorch only kdjax's column is filled.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import medians

from kdjax import models
from kdjax.types import Variables

try:
    import torch
    import torch_bert as plain
except ImportError:
    torch = plain = None

VOCABULARY = 30522
RATE, DECAY = 1e-4, 0.01


def batch_of(batch: int, length: int) -> dict[str, np.ndarray]:
    """Return random token ids of random lengths; the first sequence is full."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(length // 4, length + 1, batch)
    sizes[0] = length
    mask = (np.arange(length) < sizes[:, None]).astype(np.int32)
    ids = rng.integers(1, VOCABULARY, (batch, length)).astype(np.int32) * mask
    types = np.zeros_like(ids)
    labels = rng.integers(0, 2, batch).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "label": labels}


def kdjax_step(
    sizes: dict[str, int], batch: dict[str, np.ndarray], dropout: float, dtype: str | None
) -> tuple[Variables, Callable[[], float]]:
    """Return the initial variables, and a call that takes one training step."""
    model = models.build("bert", num_classes=2, dropout=dropout, dtype=dtype, **sizes)
    tx = optax.adamw(RATE, weight_decay=DECAY)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    first = jax.tree.map(np.array, variables)

    def step(params: Any, opt: Any, key: Any, batch: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            times, _ = model.apply(Variables(params, {}), batch, train=True, key=key)
            losses = optax.softmax_cross_entropy_with_integer_labels(times.logits, batch["label"])
            return losses.mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(gradient, opt, params)
        return optax.apply_updates(params, updates), opt, jax.random.fold_in(key, 1), value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    state = [variables.params, tx.init(variables.params), jax.random.key(1)]
    placed = {name: jnp.asarray(x) for name, x in batch.items()}

    def call() -> float:
        *state[:], value = compiled(*state, placed)
        jax.block_until_ready(state[0])
        return float(value)

    return first, call


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    batch = batch_of(args.batch, args.length)
    shape = {"num_layers": args.layers, "width": args.width, "num_heads": args.heads}
    shape |= {"vocab_size": VOCABULARY, "max_length": args.length}
    variables, call = kdjax_step(shape, batch, args.dropout, args.dtype)
    table = {"kdjax": call}
    if plain is not None:
        torch.set_num_threads(args.threads)
        weights, sizes = models.flatten(variables), (args.layers, args.heads)
        exact = kdjax_step(shape, batch, 0.0, None)[1]()
        apart = abs(exact - plain.stepper(weights, batch, *sizes, 0.0, RATE, DECAY)())
        table["torch"] = plain.stepper(weights, batch, *sizes, args.dropout, RATE, DECAY)
    times = {name: 1e3 * value for name, value in medians(table, args.repeats).items()}
    print(f"jax {jax.__version__} on {jax.default_backend()}, batch {args.batch} x {args.length}")
    print("\n| dropout | kdjax ms | PyTorch ms | PyTorch / kdjax | first losses apart |")
    print("|---:|---:|---:|---:|---:|")
    torch_ms = times.get("torch")
    rest = (
        "| - | - | - |"
        if torch_ms is None
        else (f"| {torch_ms:.0f} | {torch_ms / times['kdjax']:.2f} | {apart:.1e} |")
    )
    print(f"| {args.dropout} | {times['kdjax']:.0f} {rest}")


if __name__ == "__main__":
    main()
