"""Speed of kdjax.models.layers.conv compared with lax's convolution on this machine.

    python benchmarks/conv.py [--members 8] [--repeats 9]

Prints medians in milliseconds of interleaved runs of lax and kdjax, and their ratio: first the
gradients of small networks (one member, and `vmap` over members as in a sweep), then single
contractions.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from timing import medians

from kdjax import models
from kdjax.models.layers import conv as conv_module
from kdjax.models.layers import conv_kernels
from kdjax.types import Variables

# batch, size, in, out, kernel, stride
SHAPES = (
    (128, 32, 3, 16, 3, 1),
    (128, 32, 16, 16, 3, 1),
    (128, 32, 16, 32, 3, 2),
    (128, 32, 16, 32, 1, 2),
    (128, 16, 32, 64, 3, 2),
    (128, 8, 64, 64, 3, 1),
    (64, 28, 1, 16, 3, 2),
    (64, 14, 16, 32, 3, 2),
    (64, 4, 16, 32, 3, 2),
)
NETWORKS = (("cnn", 64, (28, 28, 1)), ("cnn", 64, (8, 8, 1)), ("resnet8", 32, (32, 32, 3)))


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    for name, batch, shape in NETWORKS:
        for members in (1, args.members):
            network(name, batch, shape, members, args.repeats)
    for shape in SHAPES:
        single(shape, args.repeats)


def network(name: str, batch: int, shape: tuple[int, ...], members: int, repeats: int) -> None:
    """Time the gradient of a training loss for all members at once."""
    model = models.build(name, num_classes=10)
    image = jax.random.normal(jax.random.key(0), (batch, *shape))
    keys = jax.random.split(jax.random.key(1), members)
    variables = jax.jit(jax.vmap(lambda key: model.init(key, {"image": image})))(keys)

    def gradient(params: Any, stats: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            inputs = Variables(params, stats)
            return (model.apply(inputs, {"image": image}, train=True)[0].logits ** 2).mean()

        return jax.grad(loss)(params)

    call = jax.vmap(gradient)
    row = compare(lambda: lambda v: call(v.params, v.stats), (variables,), repeats)
    print(f"{name} {batch} x {shape}, {members} member(s), gradient: {row}", flush=True)


def single(shape: tuple[int, ...], repeats: int) -> None:
    """Time the convolution and its two gradients."""
    batch, size, channels, features, window, stride = shape
    x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    kernel = jax.random.normal(jax.random.key(1), (window, window, channels, features))
    pad = (window // 2, window // 2)

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv_module.conv2d(x, kernel, strides=(stride, stride), padding=(pad, pad))

    y = conv(x, kernel)
    print(f"{shape}", flush=True)
    calls = {
        "forward": lambda x, kernel, y: conv(x, kernel),
        "input gradient": lambda x, kernel, y: jax.vjp(lambda x: conv(x, kernel), x)[1](y),
        "weight gradient": lambda x, kernel, y: jax.vjp(lambda k: conv(x, k), kernel)[1](y),
    }
    for what, call in calls.items():
        print(f"  {what}: {compare(lambda call=call: call, (x, kernel, y), repeats)}", flush=True)


def compare(make: Callable[[], Callable[..., Any]], args: tuple[Any, ...], repeats: int) -> str:
    """Time a call with lax's convolution and with kdjax's, interleaved."""
    compiled = {}
    for which, contraction in (("lax", _only_lax), ("ours", _OURS)):
        conv_module._contraction = contraction
        call = make()
        compiled[which] = jax.jit(lambda *args, call=call: call(*args)).lower(*args).compile()
    conv_module._contraction = _OURS
    calls = {
        which: lambda call=call: jax.block_until_ready(call(*args))
        for which, call in compiled.items()
    }
    times = medians(calls, repeats, warm=1)
    lax_ms, kdjax_ms = 1e3 * times["lax"], 1e3 * times["ours"]
    return f"{lax_ms:.2f} / {kdjax_ms:.2f} ms = {lax_ms / kdjax_ms:.2f}"


_OURS = conv_module._contraction


def _only_lax(out: int, geometry: Any) -> Callable[..., jax.Array]:
    del out
    return lambda x, kernel: conv_kernels.convolve(x, kernel, geometry)


if __name__ == "__main__":
    jnp.zeros(1).block_until_ready()
    main()
