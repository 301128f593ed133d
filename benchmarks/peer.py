"""Mutual learning of a ResNet-20 and a ResNet-8 in kdjax and in a tuned plain PyTorch loop.

Both use the same images (an .npz of 32 x 32 photographs), batch size, augmentation, losses
(cross-entropy and KL toward the other), and SGD with momentum, weight decay and cosine, in float32
on the CPU. The speed is that of whole steps including augmentation, interleaved between the
libraries. With --epochs the script also prints the test accuracy after equal epochs.

    python benchmarks/peer.py --data=cifar10_jpeg_5k.npz [--repeats=15] [--epochs=10] [--seeds=3]

PyTorch is in the extra `bench`.
"""

import argparse
import statistics
from typing import Any

import jax
import numpy as np
import torch
import torch_resnet as plain
from timing import medians

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program

DEPTHS = {"teacher": 20, "student": 8}
RATE, DECAY = 0.1, 5e-4


def config(path: str, batch: int, steps: int, seeds: list[int], roles: tuple[str, ...]) -> Any:
    """Return the config of mutual learning, or of one network alone."""
    optimizer = {"name": "sgd", "learning_rate": RATE, "momentum": 0.9, "weight_decay": DECAY}
    players = {}
    for role in roles:
        others = [other for other in roles if other != role]
        kl = {"forward_kl": {"toward": others[0], "temperature": 1.0}} if others else {}
        players[role] = {
            "model": {"name": f"resnet{DEPTHS[role]}"},
            "optimizer": {**optimizer, "schedule": {"name": "cosine"}},
            "terms": {"ce": {}, **kl},
        }
    return {
        "num_steps": steps,
        "batch_size": batch,
        "devices": 1,
        "data": {"name": "npz", "path": path, "validation": 500, "augment": "crop_flip"},
        "roles": players,
        "sweep": {"seed": seeds},
    }


class KdjaxRun:
    """kdjax's compiled step on kdjax's batches."""

    def __init__(self, config: Any) -> None:
        """Compile the step."""
        self.run = build(config)
        variant = self.run.variants[0]
        self.program, state = make_program(
            self.run, MemberGroup(variant, tuple(range(len(variant.members)))), {}
        )
        self.state = self.program.layout.place(state)
        self.batches = device_batches(self.run, self.program, 0)

    def step(self) -> None:
        """Train on one batch."""
        self.state, metrics = self.program.step(self.state, next(self.batches))
        jax.block_until_ready((self.state, metrics))

    def accuracy(self) -> dict[str, list[float]]:
        """Return the test accuracy in per cent by role, one for each member."""
        right: dict[str, Any] = dict.fromkeys(DEPTHS, 0.0)
        count = 0.0
        for batch in self.run.source.evals["test"]():
            outputs = self.program.predict(self.state, self.program.eval_layout.put(batch))
            mask = np.asarray(batch["mask"])
            count += mask.sum()
            for role in right:
                hits = np.asarray(outputs[role]).argmax(-1) == batch["label"]
                right[role] = right[role] + (hits * mask).sum(-1)
        return {role: list(np.atleast_1d(100 * x / count)) for role, x in right.items()}


class TorchRun:
    """The PyTorch loop on PyTorch's batches."""

    def __init__(
        self,
        kdjax_run: KdjaxRun,
        path: str,
        batch: int,
        steps: int,
        seed: int,
        roles: tuple[str, ...],
    ) -> None:
        """Use kdjax's training images, so that validation is held out here too."""
        torch.manual_seed(seed)
        with np.load(path) as arrays:
            images, labels = (torch.from_numpy(arrays[name]) for name in ("x_test", "y_test"))
        self.test = images, labels.long().ravel()
        arrays = kdjax_run.run.source.arrays or {}
        train = [torch.from_numpy(np.array(arrays[name])) for name in ("image", "label")]
        train[1] = train[1].long()
        pixels = train[0].numpy() / 255
        self.ready = plain.normaliser(pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))
        self.batches = plain.batches(*train, batch, seed)
        depths = tuple(DEPTHS[role] for role in roles)
        self.networks = plain.Mutual(depths, int(train[1].max()) + 1, RATE, DECAY, steps)

    def step(self) -> None:
        """Train on one batch."""
        self.networks.step(*next(self.batches), self.ready)

    def accuracy(self) -> list[float]:
        """Return the test accuracy in per cent by network."""
        return self.networks.accuracy(*self.test, self.ready)


def speed(args: argparse.Namespace) -> None:
    """Print ratios of step times for single networks and for both."""
    print("| step, batch 128 | PyTorch time / kdjax time |\n|---|---:|")
    for roles in (("student",), ("teacher",), ("teacher", "student")):
        kdjax_run = KdjaxRun(config(args.data, args.batch, 10_000, [0], roles))
        torch_run = TorchRun(kdjax_run, args.data, args.batch, 10_000, 0, roles)
        times = medians({"kdjax": kdjax_run.step, "torch": torch_run.step}, args.repeats)
        names = " with ".join(f"ResNet-{DEPTHS[role]}" for role in roles)
        print(f"| {names} | {times['torch'] / times['kdjax']:.2f} |", flush=True)


def accuracies(args: argparse.Namespace) -> None:
    """Train both for equal epochs and print the test accuracy, mean +- sd over seeds."""
    with np.load(args.data) as arrays:
        steps = args.epochs * ((len(arrays["x_train"]) - 500) // args.batch)
    roles, seeds = tuple(DEPTHS), list(range(args.seeds))
    kdjax_run = KdjaxRun(config(args.data, args.batch, steps, seeds, roles))
    for _ in range(steps):
        kdjax_run.step()
    table: dict[str, dict[str, list[float]]] = {"kdjax": kdjax_run.accuracy()}
    rows = []
    for seed in seeds:
        torch_run = TorchRun(kdjax_run, args.data, args.batch, steps, seed, roles)
        for _ in range(steps):
            torch_run.step()
        rows.append(torch_run.accuracy())
    table["PyTorch"] = dict(zip(roles, map(list, zip(*rows, strict=True)), strict=True))
    print(f"\n| after {args.epochs} epochs ({steps} steps) | ResNet-20 | ResNet-8 |")
    print("|---|---:|---:|")
    for name, by_role in table.items():
        cells = (f"{statistics.mean(x):.2f} ± {statistics.stdev(x):.2f}" for x in by_role.values())
        print(f"| {name}, {len(seeds)} seeds | {' | '.join(cells)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__}\n")
    speed(args)
    if args.epochs:
        accuracies(args)


if __name__ == "__main__":
    main()
