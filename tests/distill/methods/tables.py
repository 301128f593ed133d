"""Six methods on tiny networks, and helpers of the tests of methods and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.distill import Player, co_train, switokd_pause, terms
from kdjax.train.optimizer import make_optimizer
from kdjax.train.step import init_opt, make_step
from kdjax.types import State

CLASSES = 4
METHODS = ("alone", "kd", "dml", "kdcl", "switokd", "bdkd")
MUTUAL = METHODS[2:]


def term(name, *, toward=(), **options):
    return terms.make_term(terms.TERM_SPECS[name](), toward=toward, **options)


def network(kind, role, axis_name=None):
    """Return a network: "cnn" has batch norm, "mlp" has none; the teacher is the wider one."""
    wide = role == "teacher"
    if kind == "mlp":
        return models.build("mlp", num_classes=CLASSES, hidden=(12,) if wide else (8,))
    widths = (6,) if wide else (4,)
    return models.build("cnn", num_classes=CLASSES, widths=widths, axis_name=axis_name)


def players(method, kind="cnn", axis_name=None):
    """Return the table of a method with published default scalars."""
    t, s = ("teacher",), ("student",)
    extra = {
        "alone": ({}, {}),
        "kd": (None, {"forward_kl": term("forward_kl", toward=t, scalars={"temperature": 4.0})}),
        "dml": (
            {"forward_kl": term("forward_kl", toward=s)},
            {"forward_kl": term("forward_kl", toward=t)},
        ),
        "kdcl": (
            {"minimum_logit_kl": term("minimum_logit_kl", toward=s)},
            {"minimum_logit_kl": term("minimum_logit_kl", toward=t)},
        ),
        "bdkd": (
            {"forward_kl": term("forward_kl", toward=s, scalars={"temperature": 2.0})},
            {"balanced_kl": term("balanced_kl", toward=t, scalars={"temperature": 2.0})},
        ),
    }
    extra["switokd"] = extra["dml"]
    names = ("correlation", "relational_distance")  # both terms couple the examples of a batch
    extra["coupled"] = ({}, {name: term(name, toward=t) for name in names})
    pause = (switokd_pause, "student") if method == "switokd" else None
    own = dict(zip(("teacher", "student"), extra[method], strict=True))
    ce = {"ce": term("ce")}
    return {
        role: Player(
            network(kind, role, axis_name),
            {} if more is None else {**ce, **more},
            pause if role == "teacher" else None,
        )
        for role, more in own.items()
    }


def hparams(table, learning_rate=0.1, weight_decay=1e-3):
    """Return hparams as from a config: scalars of terms and optimizers of the trained roles."""
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return {
        role: {
            "terms": {name: dict(t.scalars) for name, t in player.terms.items()},
            "optimizer": rates,
        }
        if player.terms
        else {}
        for role, player in table.items()
    }


def batch(seed=0, count=16):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=(count, 8, 8, 1)).astype(np.float32),
        "label": rng.integers(0, CLASSES, count).astype(np.int32),
        "mask": np.ones(count, np.float32),
        "id": np.arange(count, dtype=np.int32),
    }


def optimizers(table):
    sgd = make_optimizer("sgd", momentum=0.9)
    return {role: sgd for role, player in table.items() if player.terms}


@functools.cache
def _init(kind):
    return jax.jit(co_train(players("alone", kind)).init)


def make_variables(kind, seed=0):
    """Initialise the networks; all methods share them, so init is compiled once for each kind."""
    return jax.device_get(_init(kind)(jax.random.key(seed), batch()))


def start(name, kind="cnn"):
    """Return the initial state on the host."""
    table, variables = players(name, kind), make_variables(kind)
    params = {role: v.params for role, v in variables.items()}
    stats = {role: v.stats for role, v in variables.items()}
    scalars = jax.tree.map(np.float32, hparams(table))
    opt = jax.device_get(init_opt(co_train(table), optimizers(table), params, scalars))
    return State(np.int32(0), jax.random.key(3), params, stats, opt, scalars)


def step(name, kind="cnn", axis_name=None, prepare=None):
    table = players(name, kind, axis_name)
    method = co_train(table, axis_name=axis_name)
    return make_step(method, optimizers(table), axis_name, prepare=prepare)


def evaluator(table):
    """Compile `f(variables, batch, step=0) -> (loss, gradients of all roles, Aux)` of a table."""
    method = co_train(table)
    scalars = jax.tree.map(jnp.float32, hparams(table))

    @jax.jit
    def run(variables, batch, step=0.0):
        stats = {role: v.stats for role, v in variables.items()}

        def loss(params):
            return method.loss(params, stats, batch, scalars, jax.random.key(0), step)

        params = {role: v.params for role, v in variables.items()}
        (total, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return total, grads, aux

    return run


def logits(table, variables, b):
    """Return the logits of the loss in float64 by role."""
    return {
        role: np.asarray(
            p.model.apply(variables[role], b, train=bool(p.terms), key=None)[0].logits, np.float64
        )
        for role, p in table.items()
    }


def scaled(variables, role, factor):
    """Scale the last layer of a role, which makes its network more confident."""
    fc = variables[role].params["fc"]
    params = {**variables[role].params, "fc": {**fc, "kernel": fc["kernel"] * np.float32(factor)}}
    return {**variables, role: variables[role]._replace(params=params)}


def same(a, b):
    """Return whether two trees are equal bit for bit."""
    return all(
        np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
