"""Losses of the results tables in plain PyTorch, written from the formulas; maps channels first.

A part of the baseline of `benchmarks/losses.py`, as `torch_losses.py`. Layers are sequences of
maps; a loss of several layers is the sum over them.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch_losses as plain
from torch.nn import functional

pool = functional.adaptive_avg_pool2d


def flow_of_solution(s: Any, t: Any) -> Any:
    """Return FSP, a number for each example."""

    def flow(low: Any, high: Any) -> Any:
        low = pool(low, high.shape[2:]).flatten(2)
        return low @ high.flatten(2).transpose(1, 2) / low.shape[-1]

    pairs = pairwise(zip(s, t, strict=True))
    return sum((flow(a, b) - flow(c, d)).pow(2).mean((1, 2)) for (a, c), (b, d) in pairs)


def neuron_selectivity(s: Any, t: Any) -> Any:
    """Return NST with the polynomial kernel."""

    def kernel(x: Any, y: Any) -> Any:
        return (x @ y.transpose(1, 2)).pow(2).mean((1, 2))

    def layer(x: Any, y: Any) -> Any:
        x, y = (functional.normalize(f.flatten(2), dim=2) for f in (x, y))
        return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)

    return sum(map(layer, s, t))


def factor_transfer(s: Any, t: Any) -> Any:
    """Return FT of flattened factors."""
    s, t = (functional.normalize(f.flatten(1)) for f in (s, t))
    return (s - t).abs().mean(1)


def spatial_factor_transfer(s: Any, t: Any) -> Any:
    """Return FT of attention maps."""
    return factor_transfer(s.pow(2).mean(1), t.pow(2).mean(1))


def activation_boundary(s: Any, t: Any) -> Any:
    """Return AB with margin 1, without the weights of the layers."""

    def layer(x: Any, y: Any) -> Any:
        wrong = torch.where(y > 0, functional.relu(1 - x), functional.relu(x + 1))
        return wrong.pow(2).flatten(1).sum(1)

    return sum(map(layer, s, t))


def variational_information(mean: Any, t: Any, log_scale: Any) -> Any:
    """Return VID."""

    def layer(x: Any, y: Any, scale: Any) -> Any:
        variance = (functional.softplus(scale) + 1e-5)[:, None, None]
        return ((x - y).pow(2) / variance + variance.log()).flatten(1).mean(1) / 2

    return sum(map(layer, mean, t, log_scale))


def negative_margin(scale: Any, bias: Any) -> Any:
    """Return OFD's margins of a batch norm."""
    deviation = scale.abs()
    z = bias / deviation
    negative = torch.special.ndtr(-z)
    density = (-z.pow(2) / 2).exp() / math.sqrt(2 * math.pi)
    return torch.where(negative > 1e-3, bias - deviation * density / negative, -3 * deviation)


def margin_relu_distance(s: Any, t: Any, scale: Any, bias: Any) -> Any:
    """Return OFD with the margins of the teacher's batch norms."""

    def layer(x: Any, y: Any, scale: Any, bias: Any) -> Any:
        target = torch.maximum(y, negative_margin(scale, bias)[:, None, None])
        counts = (x > target) | (y > 0)
        return ((x - target).pow(2) * counts).flatten(1).sum(1)

    return sum(map(layer, s, t, scale, bias))


def correlation_congruence(s: Any, t: Any) -> Any:
    """Return CC between neighbours."""
    gap = (s - t).abs()
    return (gap[:-1] * gap[1:]).sum(1).mean()


def kernel_correlation_congruence(s: Any, t: Any) -> Any:
    """Return CC by the series of order 2, gamma .4."""

    def kernel(x: Any) -> Any:
        gram = 0.8 * x @ x.T
        return math.exp(-0.8) * (1 + gram + gram.pow(2) / 2)

    return (kernel(s) - kernel(t)).norm() / len(s) ** 2


def singular_vectors(s: Any, t: Any, *, channels: bool = False) -> Any:
    """Return KDSVD with one vector of each map."""

    def matrices(maps: Any) -> Any:
        if channels:
            return maps.flatten(2).transpose(1, 2)
        return maps.flatten(1, 2)

    def aligned(x: Any, y: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            v = torch.linalg.svd(matrices(y), full_matrices=False)[2][:, 0]
            v = v * v.gather(1, v.abs().argmax(1, keepdim=True)).sign()
        own = torch.linalg.svd(matrices(x), full_matrices=False)[2][:, :4]
        cosines = torch.einsum("bkm,bm->bk", own, v)
        nearest = cosines.abs().argmax(1, keepdim=True)
        picked = own.gather(1, nearest[..., None].expand(-1, 1, own.shape[2]))[:, 0]
        return picked * cosines.gather(1, nearest).sign().detach(), v

    def kernel(low: Any, high: Any) -> Any:
        return (-(high[:, :, None] - low[:, None]).pow(2) / 8).exp()

    pairs = pairwise(map(aligned, s, t))
    return sum((kernel(a, b) - kernel(c, d)).pow(2).sum((1, 2)) for (a, c), (b, d) in pairs)


def singular_vectors_by_channels(s: Any, t: Any) -> Any:
    """Return KDSVD of channels."""
    return singular_vectors(s, t, channels=True)


def softmax_regression(s: Any, t: Any, weight: Any) -> Any:
    """Return SRRL."""
    gap = s.mean((2, 3)) - t.mean((2, 3))
    return gap.pow(2).mean(1) + (gap @ weight).pow(2).mean(1)


def log_sum_distance(s: Any, t: Any) -> Any:
    """Return SRD's distance, exponent 4."""
    s, t = (functional.batch_norm(x, None, None, training=True, eps=1e-4) for x in (s, t))
    return 2 * (s - t).abs().pow(4).sum().log()


def class_activation(s: Any, t: Any) -> Any:
    """Return CAT-KD at 2 x 2."""
    return (pool(s, 2) - pool(t, 2)).pow(2).flatten(1).mean(1)


def standardized_kl(s: Any, t: Any) -> Any:
    """Return KL of standardized logits, T = 2."""
    s, t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (s, t))
    return plain.forward(s, t, 2.0)


def multi_level_kl(s: Any, t: Any, s_view: Any, t_view: Any) -> Any:
    """Return MLLD, T = 4."""
    with torch.no_grad():
        sure = functional.softmax(t, 1)
        images, classes = (
            (x <= x.quantile(0.5)).float().mean() for x in (sure.amax(1), sure.sum(0))
        )

    def kl(x: Any, y: Any, temperature: float) -> Any:
        return temperature**2 * plain.forward(x, y, temperature).mean()

    total = sum(kl(s_view, t_view, t_) for t_ in (4, 3, 5)) + sum(kl(s, t, t_) for t_ in (2, 6))
    for temperature in (4, 3, 5, 2, 6):
        p, q = (functional.softmax(z / temperature, 1) for z in (s, t))
        total = total + images * kl(s, t, temperature)
        total = total + classes * (p.T @ p - q.T @ q).pow(2).sum() / p.shape[1]
        total = total + images * (p @ p.T - q @ q.T).pow(2).sum() / len(p)
    return total


def regions(maps: Any) -> Any:
    """Return the logits of 21 regions, [batch, regions, classes]."""
    return torch.cat([pool(maps, grid).flatten(2) for grid in (1, 2, 4)], 2).transpose(1, 2)


def _region_weights(t: Any, labels: Any) -> Any:
    right = t.argmax(2) == labels[:, None]
    return torch.where(right == right[:, :1], 1.0, 2.0)


def regional_kl(s: Any, t: Any, labels: Any) -> Any:
    """Return SDD-KD, T = 4."""
    s, t = regions(s), regions(t)
    return (_region_weights(t, labels) * plain.forward(s, t)).mean(1)


def regional_decoupled_kl(s: Any, t: Any, labels: Any) -> Any:
    """Return SDD-DKD, T = 4."""
    s, t = regions(s), regions(t)
    every = labels[:, None].expand(-1, s.shape[1]).flatten()
    values = plain.decoupled(s.flatten(0, 1), t.flatten(0, 1), every).view(s.shape[:2])
    return (_region_weights(t, labels) * values).mean(1)


def skew_forward_kl(s: Any, t: Any) -> Any:
    """Return KL from the teacher to the mixture, alpha .1."""
    p, q = functional.softmax(s, -1), functional.softmax(t, -1)
    return (q * (q.log() - (0.1 * q + 0.9 * p).log())).sum(-1)


def skew_reverse_kl(s: Any, t: Any) -> Any:
    """Return KL from the student to the mixture, alpha .1."""
    return skew_forward_kl(t, s)


def adaptive_kl(s: Any, t: Any, *, from_tail: bool = False) -> Any:
    """Return AKL."""
    with torch.no_grad():
        p, q = functional.softmax(s, -1), functional.softmax(t, -1)
        ordered, order = q.sort(-1, descending=not from_tail)
        gap = (p - q).abs().gather(-1, order)
        first = ordered.cumsum(-1) <= 0.5
        if not from_tail:
            first[..., 0] = True
        share = (gap * first).sum(-1) / gap.sum(-1)
        share = 1 - share if from_tail else share
    return share * plain.forward(s, t, 1.0) + (1 - share) * plain.forward(t, s, 1.0)


def adaptive_kl_from_tail(s: Any, t: Any) -> Any:
    """Return AKL as DSKD reads it."""
    return adaptive_kl(s, t, from_tail=True)


def jensen_shannon_of_tokens(s: Any, t: Any) -> Any:
    """Return GKD's divergence, weight 1/2, T = 1."""
    log_s, log_t = (functional.log_softmax(z, -1) for z in (s, t))
    middle = torch.logsumexp(torch.stack([log_s, log_t]), 0) - math.log(2)
    return (plain.kl(log_s, middle) + plain.kl(log_t, middle)) / 2


def _answer(logits: Any, labels: Any, drop: int) -> Any:
    """Return the rows that predict the labels of one example."""
    places = (labels >= 0).nonzero()[:, 0]
    start = max(int(places[0]) - 1, 0)
    return logits[start : start + len(places) - drop]


def _gap(x: Any, y: Any) -> Any:
    """Return the mean L1 distance of the rows of the shorter answer, the width padded."""
    size, width = min(len(x), len(y)), max(x.shape[1], y.shape[1])
    x, y = (functional.pad(p[:size], (0, width - p.shape[1])) for p in (x, y))
    return (x - y).abs().sum(1).mean()


def universal_logit_distance(s: Any, t: Any, s_labels: Any, t_labels: Any) -> Any:
    """Return ULD, a number for each example."""
    values = []
    for x, y, own, other in zip(s, t, s_labels, t_labels, strict=True):
        rows = _answer(x, own, 1), _answer(y, other, 0)
        values.append(_gap(*(functional.softmax(z, 1).sort(1, True)[0] for z in rows)))
    return torch.stack(values)


def multi_level_transport(s: Any, t: Any, s_labels: Any, t_labels: Any) -> Any:
    """Return Multi-Level-OT."""
    sides = []
    for logits, labels, drop in ((s, s_labels, 1), (t, t_labels, 0)):
        scaled = logits / (logits.std(-1, keepdim=True) + 1e-4)
        answers = [_answer(z, y, drop) for z, y in zip(scaled, labels, strict=True)]
        answers = [functional.softmax(z, 1) for z in answers]
        order = sum(p.sum(0) for p in answers).topk(50).indices
        sides.append([p[:, order] for p in answers])
    longest = max(len(p) for side in sides for p in side)
    own, other = (
        torch.stack([functional.pad(p, (0, 0, 0, longest - len(p))) for p in side])
        for side in sides
    )
    absolute = torch.stack([_gap(x, y) for x, y in zip(*sides, strict=True)]).mean()
    log_q = functional.log_softmax(other, -1)
    logarithmic = -(functional.softmax(own, -1) * log_q).sum(-1).mean()
    x, y = functional.softmax(other / 2, -1), functional.softmax(own / 2, -1)
    cost = torch.cdist(x, y, p=1)
    plan = (-cost / 0.1).exp()
    for _ in range(10):
        plan = plan / plan.sum(2, keepdim=True)
        plan = plan / plan.sum(1, keepdim=True)
    return absolute + 0.1 * logarithmic + 1e-4 * (plan * cost).sum()
