"""The types of kdjax: models, methods, states and data sources.

The rest of the package is plain functions of these tuples. Comments beside the names give shapes.
A `role` is the name of a player ("teacher", "student", ...); a mapping keyed by role holds exactly
the roles of the method.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]  # "image" [batch, height, width, channel], "label" int32 [batch], ...
Metrics = Mapping[str, Array]  # "<role>/<metric>" or "<role>/<term>/<quantity>" -> scalar
Scalars = Mapping[str, Any]  # name -> traced scalar
EvalBatches = Callable[[], Iterator[Mapping[str, Any]]]
TrainBatches = Callable[[int, int], Iterator[Mapping[str, Any]]]


class Outputs(NamedTuple):
    """Outputs of a network for a batch.

    `logits` [batch, classes] float32; `features` maps a layer's name to its activations, always
    with "pooled" [batch, width], the input of the last linear layer.

    A detector's rows are regions instead of examples: `logits` [rows, classes], "pooled" [rows,
    width], and features "row_label" and "row_mask" [rows] stand for the label and mask of the
    batch.
    """

    logits: Array
    features: Mapping[str, Array]


class Variables(NamedTuple):
    """All arrays of one network: `params` receive gradients, `stats` (batch norm) do not."""

    params: PyTree
    stats: PyTree


class Apply(Protocol):
    """The forward pass of a model; `key` is needed in training by models with dropout."""

    def __call__(
        self, variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        """Return the outputs and the stats after this batch (unchanged when not training)."""
        ...


class Model(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[Array, Batch], Variables]  # init(key, batch) -> Variables
    apply: Apply  # apply(variables, batch, *, train, key) -> (Outputs, stats)


class Aux(NamedTuple):
    """Outputs of a method beside its scalar loss.

    `stats` by role, after this batch; `metrics`; `active` by role (bool scalar): a role mapped
    to False takes no step on this batch (params, stats and optimizer stay bit-identical). Roles
    that are missing from `active` always step. `outputs` by role, of this device's batch, not
    detached: `with_critic` reads them.
    """

    stats: Mapping[str, PyTree]
    metrics: Metrics
    active: Mapping[str, Array]
    outputs: Mapping[str, Outputs] = {}


class Method(NamedTuple):
    """Networks that learn together, by role, and the loss that they minimise.

    `init(key, batch) -> {role: Variables}`; `loss(params, stats, batch, hparams, key, step) ->
    (scalar, Aux)` with `params`, `stats` and `hparams` by role; `trains`: the roles that receive
    gradients. `key` is the same on all devices.

    Under an axis name `scalar` and the metrics are *this device's share* of the global mean:
    their sum over devices is the global value.
    """

    init: Callable[[Array, Batch], dict[str, Variables]]
    loss: Callable[..., tuple[Array, Aux]]
    trains: tuple[str, ...]


class State(NamedTuple):
    """Everything that training changes or depends on, by role: one pytree, one checkpoint."""

    step: Array  # int32 []
    key: Array  # typed PRNG key []; constant, a step folds in its number
    params: Mapping[str, PyTree]
    stats: Mapping[str, PyTree]
    opt: Mapping[str, PyTree]  # the roles that train only
    hparams: Mapping[str, Any]  # role -> "terms" -> term -> scalar, and role -> "optimizer"


class Spec(NamedTuple):
    """Properties of a data set that models depend on.

    `shape` (height, width, channel) of an example; `mean` and `std` per channel, in units of the
    stored pixels divided by `scale` (255 for uint8 images, 1 for floats).

    Text sets `inputs`: the entries of a batch beside "label", "id" and "mask", by name, as (shape
    of one example at the greatest length, dtype); `vocab_size`; `task`, whose metrics are reported.
    `shape` is then (length,); `num_classes` 1 is a regression. The labels of a language model are
    tokens, so its `inputs` include "label", and `num_classes` is `vocab_size`.

    Pairs set `latents`: the number of values of each hidden factor. A batch then holds a second
    view of every example, "view", of the same shape, and "label" is int32 [batch, factors];
    `num_classes` is 0. `mutual_information` of the views, in nats, where it is known exactly.
    """

    shape: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    inputs: Mapping[str, tuple[tuple[int, ...], str]] = {}
    vocab_size: int = 0
    vocabulary: str = ""  # a digest of its words
    task: str = ""
    latents: tuple[int, ...] = ()
    mutual_information: float | None = None


class Source(NamedTuple):
    """A data set on the host, numpy only.

    `size`: examples by split ("train", "validation", "test"). `train(step, seed)` yields batches
    without end, first that of number `step`; a batch depends on (seed, step) alone.
    `evals[split]()` yields the whole split once, in order, the last batch padded to full size with
    mask 0. Batches are dicts of "image" (raw: uint8 or float32), "size" (int32 [batch, 2], height
    and width of a picture squeezed into a square canvas), "label" int32, "id" int32, "mask"
    float32.

    Small sets set `arrays`: the whole training split ("image", "label", aligned with "id" = the
    row). They live on the device, and `train` yields only {"id": int32 [batch]}.

    Sets that are decoded as they are read set `rows(index, count)`: the same source, of whose
    batches only block `index` of `count` equal blocks of rows is read.

    `digest`: by part of the data, its size and a hash of its content, or of names, sizes and
    annotations where the content is streamed. `verify()` reads every picture that is streamed from
    a file of its own and raises UserError if one cannot be used.
    """

    spec: Spec
    size: Mapping[str, int]
    train: TrainBatches
    evals: Mapping[str, EvalBatches]
    arrays: Mapping[str, Any] | None = None
    rows: Callable[[int, int], "Source"] | None = None
    digest: Mapping[str, str] = {}
    verify: Callable[[], None] | None = None
