"""The pairs of networks of `accelerator.py`, with their batches and methods."""

from collections.abc import Callable
from typing import Any, NamedTuple

import bare  # noqa: F401 - first: it lets kdjax be imported without its dependencies
import numpy as np

from kdjax import models
from kdjax.distill import Player, co_train, player_hparams, terms
from kdjax.train.optimizer import make_optimizer
from kdjax.types import Method


class Work(NamedTuple):
    """A pair of networks and its batch; `co_train`: both learn, else the teacher is frozen."""

    teacher: str
    student: str
    batch: int
    size: int  # pixels, or tokens
    classes: int
    co_train: bool = False
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Say all of it in one line."""
        kind = "co-trained" if self.co_train else "offline"
        return f"{self.teacher} -> {self.student}, {self.batch} x {self.size}, {kind}, {self.dtype}"

    @property
    def text(self) -> bool:
        """Return if the batch holds tokens."""
        return self.teacher.startswith("bert")


def works(tiny: bool) -> list[Work]:
    """List the pairs, those that matter most first."""
    if tiny:
        sizes = [Work("ResNet18", "ResNet18", 2, 32, 5), Work("resnet8", "resnet8", 4, 32, 5)]
        sizes.append(Work("bert-1", "bert-1", 4, 8, 3))
        return [*sizes, sizes[1]._replace(co_train=True, dtype="bfloat16")]
    imagenet = Work("ResNet50", "ResNet18", 128, 224, 1000)
    cifar = Work("resnet32x4", "resnet8x4", 64, 32, 100)
    bert = Work("bert-12", "bert-6", 32, 128, 2)
    low = {"dtype": "bfloat16"}
    return [
        imagenet._replace(**low), cifar, bert._replace(**low), cifar._replace(batch=1024, **low),
        imagenet._replace(co_train=True, **low), imagenet, bert, cifar._replace(co_train=True),
        cifar._replace(batch=1024), imagenet._replace(co_train=True),
    ]  # fmt: skip


def batch_of(work: Work) -> dict[str, np.ndarray]:
    """Return random pixels or token ids with random labels."""
    rng = np.random.default_rng(0)
    labels = {"label": rng.integers(0, work.classes, work.batch).astype(np.int32)}
    shape = (work.batch, work.size)
    if not work.text:
        return {"image": rng.normal(size=(*shape, work.size, 3)).astype(np.float32), **labels}
    ids = rng.integers(1, 1000, shape).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        **labels,
    }


def network(work: Work, name: str) -> Any:
    """Build one of a pair; "bert-6" has six layers of BERT-base."""
    options: dict[str, Any] = {"num_classes": work.classes, "dtype": work.dtype}
    if work.text:
        layers = int(name.partition("-")[2])
        small = {"width": 16, "num_heads": 2, "vocab_size": 1000} if layers == 1 else {}
        return models.build("bert", num_layers=layers, **small, **options)
    if name.startswith("ResNet"):
        options["stem"] = "imagenet"
    return models.build(name, **options)


def transport() -> terms.TermSpec:
    """Return SinKD's term with a constant epsilon: a traced one needs ott, for small values."""
    spec = terms.sinkhorn()

    def loss(student: Any, teachers: Any, batch: Any, scalars: Any) -> Any:
        return spec.loss_fn(student, teachers, batch, {**scalars, "epsilon": 0.1})

    return spec._replace(loss_fn=loss)


def method_of(work: Work, *, distil: bool = True) -> tuple[Method, dict, dict]:
    """Return the method, the optimizers and the scalars: KD, SinKD for text, or BD-KD."""

    def term(make: Callable, peer: str, **scalars: float) -> Any:
        return terms.make_term(make(), toward=[peer], scalars=scalars)

    ce = {"ce": terms.make_term(terms.cross_entropy())}
    student, teacher = dict(ce), {}
    if work.co_train:
        teacher = dict(ce)
        if distil:
            teacher["forward_kl"] = term(terms.forward_kl, "student", temperature=4.0)
            student["balanced_kl"] = term(terms.balanced_kl, "teacher", temperature=4.0)
    elif distil:
        student["forward_kl"] = term(terms.forward_kl, "teacher", temperature=4.0)
        if work.text:
            student["sinkhorn"] = term(transport, "teacher", weight=1e-3)
    players = {
        "teacher": Player(network(work, work.teacher), teacher),
        "student": Player(network(work, work.student), student),
    }
    optimizer = make_optimizer("adamw" if work.text else "sgd")
    hparams = {role: player_hparams(p, learning_rate=1e-3) for role, p in players.items()}
    return co_train(players), dict.fromkeys(players, optimizer), hparams
