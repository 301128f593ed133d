"""Reference losses in plain float64 numpy from their definitions, and comparison helpers.

Reference gradients are central differences of these, in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special


def central(function, args, position, step=1e-6):
    """Return the gradient of sum(function(*args)) in one argument by central differences."""
    args = [np.array(a, np.float64) if i == position else a for i, a in enumerate(args)]
    x = args[position]
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        original, values = x[index], []
        for change in (step, -step):
            x[index] = original + change
            values.append(np.sum(function(*args)))
        x[index] = original
        out[index] = (values[0] - values[1]) / (2 * step)
    return out


def float64(*arrays):
    return [np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else np.asarray(a)
            for a in arrays]  # fmt: skip


def decoupled_kl(s, t, labels, alpha=1.0, beta=8.0, temperature=4.0):
    out = []
    for z_s, z_t, y in zip(*float64(s, t, labels), strict=True):
        p, q = (special.softmax(z / temperature) for z in (z_s, z_t))
        rest_p, rest_q = np.delete(p, y), np.delete(q, y)
        target = special.rel_entr([q[y], rest_q.sum()], [p[y], rest_p.sum()]).sum()
        rest_p, rest_q = rest_p / rest_p.sum(), rest_q / rest_q.sum()
        out.append(alpha * target + beta * special.rel_entr(rest_q, rest_p).sum())
    return np.array(out)


def correlation(s, t, beta=1.0, gamma=1.0, temperature=1.0):
    p, q = (special.softmax(z / temperature, axis=-1) for z in float64(s, t))
    within = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    across = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return beta * (1 - within) + gamma * (1 - across)


def norm_direction(s, t, means, labels):
    out = []
    for f, g, y in zip(*float64(s, t, labels), strict=True):
        e = means[y] / np.linalg.norm(means[y])
        out.append(1 - f @ e / max(np.linalg.norm(f), np.linalg.norm(g)))
    return np.array(out)


def class_mean_cosine(s, means, labels):
    return norm_direction(s, np.zeros_like(s), means, labels)


def attention_transfer(s, t):
    out = []
    for f, g in zip(*float64(s, t), strict=True):
        a, b = (np.square(x).sum(-1).ravel() for x in (f, g))
        out.append(np.mean((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2))
    return np.array(out)


def hierarchical_context(s, t):
    out = []
    for f, g in zip(*float64(s, t), strict=True):
        total, weights, weight = np.mean((f - g) ** 2), 1.0, 1.0
        for cells in (4, 2, 1):
            if cells < f.shape[0]:
                weight /= 2
                weights += weight
                total += weight * np.mean((pooled(f, cells) - pooled(g, cells)) ** 2)
        out.append(total / weights)
    return np.array(out)


def pooled(f, cells):
    out = np.zeros((cells, cells, f.shape[-1]))
    for i in range(cells):
        for j in range(cells):
            rows, columns = (
                slice(int(np.floor(k * n / cells)), int(np.ceil((k + 1) * n / cells)))
                for k, n in ((i, f.shape[0]), (j, f.shape[1]))
            )
            out[i, j] = f[rows, columns].mean(axis=(0, 1))
    return out


def _flat(*arrays):
    return [a.reshape(len(a), -1) for a in float64(*arrays)]


def similarity_preserving(s, t):
    grams = [f @ f.T for f in _flat(s, t)]
    grams = [g / np.sqrt(np.diag(g @ g.T))[:, None] for g in grams]
    return np.linalg.norm(grams[0] - grams[1]) ** 2 / len(s) ** 2


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def relational_distance(s, t):
    both = []
    for f in _flat(s, t):
        d = np.array([[np.linalg.norm(a - b) for b in f] for a in f])
        both.append(d / d[d > 0].mean())
    return huber(both[0] - both[1]).mean()


def relational_angle(s, t):
    total, n = 0.0, len(s)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                cosines = [_cosine(f[j] - f[i], f[k] - f[i]) for f in _flat(s, t)]
                total += huber(cosines[0] - cosines[1])
    return total / n**3


def _cosine(a, b):
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / size if size > 0 else 0.0


def probabilistic_knowledge_transfer(s, t):
    both = []
    for f in _flat(s, t):
        similarity = np.array([[(1 + _cosine(a, b)) / 2 for b in f] for a in f])
        both.append(similarity / similarity.sum(1, keepdims=True))
    return special.rel_entr(both[1] + 1e-7, both[0] + 1e-7).mean()


def contrast(s, t, memory_s, memory_t, chosen, normalizers, negatives, temperature):
    """Return CRD as NCE over probabilities; `normalizers` are Z / rows of student and teacher."""
    s, t = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in float64(s, t))
    rows, total = len(memory_s), np.zeros(len(s))
    for v, memory, z in ((s, memory_t, normalizers[0]), (t, memory_s, normalizers[1])):
        for b in range(len(v)):
            p = np.exp(memory[chosen[b]] @ v[b] / temperature) / (z * rows)
            noise = negatives / rows
            total[b] -= np.log(p[0] / (p[0] + noise)) + np.log(noise / (p[1:] + noise)).sum()
    return total


@functools.cache
def _value_and_gradients(function):
    def total(student, teacher, scalars):
        out = function(student, teacher, **scalars)
        return jnp.sum(out), out

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def gradients(function, student, teacher, **scalars):
    """Return the value, and the gradients of its sum: examples do not mix, so each has its own.

    A function is traced once for each shape: the scalars are traced too.
    """
    (_, value), grads = _value_and_gradients(function)(student, teacher, scalars)
    return value, grads


def close(actual, expected, rtol=1e-5):
    """Compare relative to the largest entry: a float32 rounding of a logit reaches every class."""
    expected = np.asarray(expected, np.float64)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=3e-6 * scale)


def close_features(actual, expected, rtol=1e-5):
    """Compare relative to the largest entry: a norm spreads one rounding over all entries."""
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol / 2 * max(1e-2, np.abs(expected).max())
    )
