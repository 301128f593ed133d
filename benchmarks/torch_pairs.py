"""The pairs of `accelerator.py` in plain PyTorch: the same networks, losses and optimizers."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_bert
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
    return nn.Sequential(*stem, *blocks, *head)


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


def kl(log_p: Any, log_q: Any) -> Any:
    """Return KL(p || q) of each row."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def balanced(s: Any, t: Any) -> Any:
    """Return BD-KD's student side at T 2 and W 2."""
    gap = [-(log.exp() * log).sum(-1) for log in (functional.log_softmax(z, -1) for z in (s, t))]
    log_s, log_t = (functional.log_softmax(z / 2, -1) for z in (s, t))
    forward, back = (1 + (a > b).float() for a, b in (gap[::-1], gap))
    return (forward.detach() * kl(log_t, log_s) + back.detach() * kl(log_s, log_t)).mean() * 4


def transport(s: Any, t: Any) -> Any:
    """Return the published Sinkhorn loss: T 2, epsilon .1, 20 iterations."""
    x, y = (torch.softmax(z / 2, dim=1) for z in (s, t))
    cost = torch.cdist(x, y, p=1)
    plan = torch.exp(-cost / 0.1)
    for _ in range(20):
        plan = plan / plan.sum(dim=1, keepdim=True)
        plan = plan / plan.sum(dim=0, keepdim=True)
    return (plan * cost).sum()


def loss_of(work: Any, s: Any, t: Any, labels: Any) -> Any:
    """Return the loss of `accelerator.method_of`."""
    s, t = s.float(), t.float()
    total = functional.cross_entropy(s, labels)
    if work.co_train:
        log_s, log_t = (functional.log_softmax(z, -1) for z in (s.detach(), t))
        return (
            total
            + functional.cross_entropy(t, labels)
            + kl(log_s, log_t).mean()
            + balanced(s, t.detach())
        )
    log_s, log_t = (functional.log_softmax(z / 4, -1) for z in (s, t.detach()))
    total = total + 16 * kl(log_t, log_s).mean()
    return total + 1e-3 * transport(s, t.detach()) if work.text else total


def stepper(work: Any, batch: dict[str, np.ndarray]) -> Callable[[], float]:
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

    step.networks = (teacher, student)  # pyright: ignore
    return step


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call after two that are not counted."""
    times = []
    for turn in range(repeats + 2):
        start = time.perf_counter()
        call()
        if turn >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def step_times(work: Any, batch: dict[str, np.ndarray], repeats: int) -> dict[str, float]:
    """Return milliseconds of the eager step, and on a GPU of the compiled one."""
    step = stepper(work, batch)
    times = {"torch_ms": 1e3 * seconds(step, repeats)}
    if DEVICE == "cuda":
        for net in step.networks:  # pyright: ignore
            net.compile()
        times["torch_compile_ms"] = 1e3 * seconds(step, repeats)
    return times


def sinkhorn_time(s: np.ndarray, t: np.ndarray, repeats: int) -> dict[str, float]:
    """Return milliseconds of the loss with its gradient."""
    student, teacher = (torch.tensor(z, dtype=torch.float32, device=DEVICE) for z in (s, t))
    student.requires_grad_(True)

    def call() -> float:
        student.grad = None
        value = transport(student, teacher)
        value.backward()
        return float(student.grad.sum())

    return {"torch_ms": 1e3 * seconds(call, repeats)}
