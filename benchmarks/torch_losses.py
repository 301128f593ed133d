"""The losses of kdjax in plain PyTorch, written from the formulas.

The baseline of `benchmarks/losses.py`. Student first, teacher second; one number for each example,
or a scalar if the loss couples the batch. The temperatures are those of the comparison.
"""

from typing import Any

import torch
from torch.nn import functional


def log_softmax(z: Any, temperature: float) -> Any:
    """Return PyTorch's log softmax at a temperature."""
    return functional.log_softmax(z / temperature, dim=-1)


def kl(log_p: Any, log_q: Any) -> Any:
    """Return KL(p || q) of each row."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def forward(s: Any, t: Any, temperature: float = 4.0) -> Any:
    """Return KL(teacher || student), Hinton's."""
    return kl(log_softmax(t, temperature), log_softmax(s, temperature))


def reverse(s: Any, t: Any) -> Any:
    """Return KL(student || teacher)."""
    return forward(t, s)


def jensen_shannon(s: Any, t: Any) -> Any:
    """Return the Jensen-Shannon divergence, weight 1/2, T = 4."""
    log_s, log_t = log_softmax(s, 4.0), log_softmax(t, 4.0)
    middle = ((log_s.exp() + log_t.exp()) / 2).log()
    return (kl(log_s, middle) + kl(log_t, middle)) / 2


def entropy(s: Any) -> Any:
    """Return Shannon's entropy."""
    log_p = log_softmax(s, 1.0)
    return -(log_p.exp() * log_p).sum(-1)


def balanced(s: Any, t: Any) -> Any:
    """Return BD-KD's loss of the student, W = 2."""
    with torch.no_grad():
        own, other = entropy(s), entropy(t)
        covering = torch.where(other > own, 2.0, 1.0)
        seeking = torch.where(own > other, 2.0, 1.0)
    return covering * forward(s, t) + seeking * reverse(s, t)


def sinkhorn(s: Any, t: Any) -> Any:
    """Return SinKD at T 2: divide rows, then columns of exp(-C / .1) by their sums, 20 times.

    `cdist` is several times faster at large sizes than broadcasting.
    """
    x, y = (torch.softmax(z / 2, dim=1) for z in (s, t))
    cost = torch.cdist(x, y, p=1)
    plan = torch.exp(-cost / 0.1)
    for _ in range(20):
        plan = plan / plan.sum(dim=1, keepdim=True)
        plan = plan / plan.sum(dim=0, keepdim=True)
    return (plan * cost).sum()


def minimum_logit(s: Any, t: Any, labels: Any) -> Any:
    """Return KDCL-MinLogit of two networks."""
    with torch.no_grad():
        every = torch.stack([s, t])
        index = labels[None, :, None].expand(2, -1, 1)
        target = (every - every.gather(2, index)).amin(0)
    return forward(s, target, 2.0)


def least_cross_entropy(s: Any, t: Any, labels: Any) -> Any:
    """Return KDCL-Naive of two networks."""
    with torch.no_grad():
        errors = torch.stack(
            [functional.cross_entropy(z, labels, reduction="none") for z in (s, t)]
        )
        target = torch.where((errors[0] <= errors[1])[:, None], s, t)
    return forward(s, target, 2.0)


def decoupled(s: Any, t: Any, labels: Any) -> Any:
    """Return DKD, alpha 1, beta 8, T 4, with the usual large constant."""
    mask = functional.one_hot(labels, s.shape[-1])
    p, q = functional.softmax(s / 4, -1), functional.softmax(t / 4, -1)
    p_y, q_y = (p * mask).sum(-1), (q * mask).sum(-1)
    target = q_y * (q_y / p_y).log() + (1 - q_y) * ((1 - q_y) / (1 - p_y)).log()
    rest = [log_softmax(z - 4000.0 * mask, 4.0) for z in (s, t)]
    return target + 8 * kl(rest[1], rest[0])


def correlation(s: Any, t: Any) -> Any:
    """Return DIST, T = 1."""

    def pearson(x: Any, y: Any) -> Any:
        x, y = (a - a.mean(-1, keepdim=True) for a in (x, y))
        return functional.cosine_similarity(x, y, dim=-1).mean()

    p, q = functional.softmax(s, -1), functional.softmax(t, -1)
    return 2 - pearson(p, q) - pearson(p.T, q.T)


def norm_direction(s: Any, t: Any, means: Any, labels: Any) -> Any:
    """Return ND."""
    direction = functional.normalize(means, dim=1)[labels]
    longest = torch.maximum(s.norm(dim=1), t.norm(dim=1))
    return 1 - (s * direction).sum(1) / longest


def attention(s: Any, t: Any) -> Any:
    """Return attention transfer, channels first."""
    a, b = (functional.normalize(f.pow(2).mean(1).flatten(1)) for f in (s, t))
    return (a - b).pow(2).mean(1)


def hierarchical(s: Any, t: Any) -> Any:
    """Return ReviewKD's pyramid of 8 x 8 maps."""
    total, weight = (s - t).pow(2).mean((1, 2, 3)), 1.0
    for cells in (4, 2, 1):
        weight /= 2
        pooled = [functional.adaptive_avg_pool2d(f, cells) for f in (s, t)]
        total = total + weight * (pooled[0] - pooled[1]).pow(2).mean((1, 2, 3))
    return total / 1.875


def similarity(s: Any, t: Any) -> Any:
    """Return SP."""
    grams = [functional.normalize(f.flatten(1) @ f.flatten(1).T) for f in (s, t)]
    return (grams[0] - grams[1]).pow(2).mean()


def distance(s: Any, t: Any) -> Any:
    """Return RKD's distance loss, by inner products as is usual."""

    def distances(x: Any) -> Any:
        square = x.pow(2).sum(1)
        gram = square[:, None] + square[None] - 2 * x @ x.T
        d = gram.clamp(min=1e-12).sqrt() * (1 - torch.eye(len(x)))
        return d / d[d > 0].mean()

    return functional.smooth_l1_loss(distances(s), distances(t))


def angle(s: Any, t: Any) -> Any:
    """Return RKD's angle loss."""
    toward = [functional.normalize(x[None] - x[:, None], dim=2) for x in (s, t)]
    return functional.smooth_l1_loss(*(torch.bmm(e, e.transpose(1, 2)) for e in toward))


def neighbours(s: Any, t: Any) -> Any:
    """Return PKT."""

    def similarity(x: Any) -> Any:
        x = functional.normalize(x)
        p = (x @ x.T + 1) / 2
        return p / p.sum(1, keepdim=True)

    p, q = similarity(s), similarity(t)
    return (q * ((q + 1e-7) / (p + 1e-7)).log()).mean()


def contrast(s: Any, t: Any, own: Any, other: Any, ids: Any, negatives: int) -> Any:
    """Return CRD with gathered embeddings and probabilities of 1 / Z, as is usual."""
    s, t = functional.normalize(s), functional.normalize(t)
    chosen = torch.cat([ids[:, None], torch.randint(len(own), (len(ids), negatives))], 1)
    total = 0.0
    for v, memory in ((s, other), (t, own)):
        p = torch.einsum("bnd,bd->bn", memory[chosen], v).div(0.07).exp()
        p = p / (p.mean().detach() * len(own))
        noise = negatives / len(own)
        right = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log()
        wrong = (noise / (p[:, 1:] + noise + 1e-7)).log()
        total = total - right - wrong.sum(1)
    with torch.no_grad():
        for memory, v in ((own, s), (other, t)):
            memory[ids] = functional.normalize(0.5 * memory[ids] + 0.5 * v)
    return total


def symmetric(s: Any, t: Any) -> Any:
    """Return the sum of both directions of KL, T = 4."""
    return forward(s, t) + forward(t, s)


def total_variation(s: Any, t: Any) -> Any:
    """Return half the L1 distance, T = 4."""
    return (functional.softmax(s / 4, -1) - functional.softmax(t / 4, -1)).abs().sum(-1) / 2


def class_mean_cosine(s: Any, means: Any, labels: Any) -> Any:
    """Return ND's direction part."""
    return 1 - functional.cosine_similarity(s, means[labels])


def stepwise_norm(s: Any) -> Any:
    """Return ND's norm part."""
    return (s.norm(dim=1) - (s.norm(dim=1).detach() + 1)).pow(2)


def cross_entropy(s: Any, labels: Any) -> Any:
    """Return the cross-entropy with the labels."""
    return functional.cross_entropy(s, labels, reduction="none")


def mse(s: Any, t: Any) -> Any:
    """Return FitNets' mean squared error."""
    return (s - t).pow(2).mean((1, 2, 3))
