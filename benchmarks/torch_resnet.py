"""Mutual learning of two CIFAR ResNets in plain PyTorch, the baseline of `peer.py`.

The loop is tuned for speed: channels-last memory, augmentation of the whole batch at once, one
backward pass for both networks, no data loader (the images are in memory, as in kdjax).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch_pairs import resnet

PADDING = 4


def crop_flip(images: Any) -> Any:
    """Shift and mirror each image of [batch, height, width, channel] uint8 independently."""
    count, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


class Mutual:
    """Networks with one optimizer each; a single network is trained without KL."""

    def __init__(
        self, depths: tuple[int, ...], classes: int, rate: float, decay: float, steps: int
    ) -> None:
        """Create the networks and SGD with momentum .9, cosine to 0 after `steps`."""
        layout = {"memory_format": torch.channels_last}
        self.networks = [resnet(f"resnet{depth}", classes).to(**layout) for depth in depths]
        self.optimizers = [
            torch.optim.SGD(n.parameters(), rate, momentum=0.9, weight_decay=decay)
            for n in self.networks
        ]
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(o, steps) for o in self.optimizers
        ]

    def step(self, images: Any, labels: Any, ready: Callable[[Any], Any]) -> None:
        """Train on one raw batch: cross-entropy and KL toward the other network."""
        x = ready(crop_flip(images))
        logits = [network(x) for network in self.networks]
        total = 0
        for own in logits:
            total = total + functional.cross_entropy(own, labels)
            for other in logits:
                if other is not own:
                    target = functional.log_softmax(other.detach(), 1)
                    log_probabilities = functional.log_softmax(own, 1)
                    total = total + functional.kl_div(
                        log_probabilities, target, reduction="batchmean", log_target=True
                    )
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def accuracy(self, images: Any, labels: Any, ready: Callable[[Any], Any]) -> list[float]:
        """Return the accuracy of each network in evaluation mode, in per cent."""
        accuracies = []
        for network in self.networks:
            network.eval()
            right = [
                (network(ready(x)).argmax(1) == y).float()
                for x, y in zip(images.split(500), labels.split(500), strict=True)
            ]
            accuracies.append(100 * float(torch.cat(right).mean()))
            network.train()
        return accuracies


def normaliser(mean: np.ndarray, std: np.ndarray) -> Callable[[Any], Any]:
    """Return a map from raw [batch, height, width, 3] to normalised [batch, 3, height, width]."""
    center, spread = (torch.tensor(255 * x, dtype=torch.float32) for x in (mean, std))
    return lambda x: ((x.float() - center) / spread).permute(0, 3, 1, 2)


def batches(images: Any, labels: Any, size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Yield batches of endless shuffled epochs; drop the last incomplete batch of each."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield images[rows], labels[rows]
