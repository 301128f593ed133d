"""The pairs of `accelerator.py` in plain PyTorch: the same networks, losses and optimizers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_bert
import torch_losses as plain
from torch import nn
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCKS = {"ResNet18": (2, 2, 2, 2), "ResNet50": (3, 4, 6, 3)}


def conv(into: int, out: int, window: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(into, out, window, stride, window // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions, or three with a bottleneck of a quarter, and a shortcut."""

    def __init__(self, into: int, out: int, stride: int, bottleneck: bool) -> None:
        """Create the layers, with a 1x1 shortcut if the shape changes."""
        super().__init__()
        inner = out // 4
        layers = (
            [conv(into, inner, 1), conv(inner, inner, 3, stride), conv(inner, out, 1)]
            if bottleneck
            else [conv(into, out, 3, stride), conv(out, out, 3)]
        )
        parts: list[nn.Module] = []
        for layer in layers:
            parts += [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]
        self.body = nn.Sequential(*parts[:-1])
        self.shortcut = nn.Sequential()
        if stride != 1 or into != out:
            self.shortcut = nn.Sequential(conv(into, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        """Map features."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet(name: str, classes: int) -> nn.Module:
    """Return ResNet18 or ResNet50 with ImageNet's stem, or resnet<depth>[x4] for 32 pixels."""
    if name in BLOCKS:
        bottleneck, counts = name == "ResNet50", BLOCKS[name]
        widths, into = [64, 128, 256, 512], 64
        widths = [4 * w for w in widths] if bottleneck else widths
        stem: list[nn.Module] = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU()]
        stem.append(nn.MaxPool2d(3, 2, 1))
    else:
        depth, _, wide = name.removeprefix("resnet").partition("x")
        bottleneck, counts = False, [(int(depth) - 2) // 6] * 3
        into = 32 if wide else 16
        widths = [64, 128, 256] if wide else [16, 32, 64]
        stem = [conv(3, into, 3), nn.BatchNorm2d(into), nn.ReLU()]
    blocks: list[nn.Module] = []
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for index in range(count):
            blocks.append(Block(into, width, 2 if stage and not index else 1, bottleneck))
            into = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes)]
    network = nn.Sequential(*stem, *blocks, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # kdjax's initialisation
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def bert(name: str, classes: int) -> nn.Module:
    """Return BERT-base with the layers of "bert-<layers>"; "bert-1" is small."""
    layers = int(name.partition("-")[2])
    width, heads, vocabulary = (16, 2, 1000) if layers == 1 else (768, 12, 30522)
    shapes = {
        "fc/bias": (classes,),
        "word/embedding": (vocabulary, width),
        "layer0/ffn_in/bias": (4 * width,),
        "position/embedding": (512, width),
    }
    return torch_bert.Bert(shapes, layers, heads, 0.1)


def loss_of(work: Any, s: Any, t: Any, labels: Any) -> Any:
    """Return the loss of `pairs.method_of`; all temperatures are 4."""
    s, t = s.float(), t.float()
    total = functional.cross_entropy(s, labels)
    if work.co_train:
        total = total + functional.cross_entropy(t, labels)
        apart = plain.forward(t, s.detach()) + plain.balanced(s, t.detach())
        return total + 16 * apart.mean()
    total = total + 16 * plain.forward(s, t).mean()
    return total + 1e-3 * plain.sinkhorn(s, t) if work.text else total


def stepper(
    work: Any, batch: dict[str, np.ndarray], *, compiled: bool = False
) -> Callable[[], float]:
    """Return a training step; it returns the loss, so it waits for the device."""
    make = bert if work.text else resnet
    teacher, student = (
        make(name, work.classes).to(DEVICE) for name in (work.teacher, work.student)
    )
    trained = [student, teacher] if work.co_train else [student]
    parameters = [p for net in trained for p in net.parameters()]
    if work.text:
        optimizer: Any = torch.optim.AdamW(parameters, 1e-3)
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [torch.tensor(batch[n], device=DEVICE) for n in names]
        inputs = [inputs[0].long(), inputs[1].bool(), inputs[2].long()]
    else:
        optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9)
        image = torch.tensor(batch["image"], device=DEVICE).permute(0, 3, 1, 2)
        inputs = [image.contiguous(memory_format=torch.channels_last)]
        for net in (teacher, student):
            net.to(memory_format=torch.channels_last)
    labels = torch.tensor(batch["label"], device=DEVICE).long()
    if not work.co_train:
        teacher.eval()
    for net in (teacher, student) if compiled else ():
        net.compile()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        low = work.dtype == "bfloat16"
        with torch.autocast(DEVICE, torch.bfloat16, enabled=low):
            with torch.set_grad_enabled(work.co_train):
                t = teacher(*inputs)
            s = student(*inputs)
        loss = loss_of(work, s, t, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def step_calls(work: Any, batch: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Return calls that take an eager step, and on a GPU a compiled one."""
    calls = {"torch_ms": stepper(work, batch)}
    if DEVICE == "cuda":
        calls["torch_compile_ms"] = stepper(work, batch, compiled=True)
    return calls


def sinkhorn_call(s: np.ndarray, t: np.ndarray) -> Callable[[], float]:
    """Return a call that computes SinKD's loss with its gradient."""
    student, teacher = (torch.tensor(z, dtype=torch.float32, device=DEVICE) for z in (s, t))
    student.requires_grad_(True)

    def call() -> float:
        student.grad = None
        plain.sinkhorn(student, teacher).backward()
        return float(student.grad.sum())

    return call
