"""The type of critics: losses between two players, with parameters and a memory."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kdjax.distill.terms.spec import Scalar
from kdjax.errors import UserError, check_layer
from kdjax.types import Array, Batch, Metrics, Outputs, PyTree, Scalars, Variables


class CriticInit(Protocol):
    """Initialise the variables; only the shapes of `student`, `teacher` and `batch` matter."""

    def __call__(self, key: Array, student: Outputs, teacher: Outputs, batch: Batch) -> Variables:
        """Return params, and stats, which change without a gradient."""
        ...


class CriticLoss(Protocol):
    """Compare the outputs of two players; `scalars` is term -> scalar -> value, no weights."""

    def __call__(
        self,
        variables: Variables,
        student: Outputs,
        teacher: Outputs,
        batch: Batch,
        scalars: Mapping[str, Scalars],
        key: Array,
    ) -> tuple[Mapping[str, Array], PyTree, Metrics]:
        """Return term -> [batch] or [], the stats after this batch, and scalars to be logged."""
        ...


class PlayerInputs(NamedTuple):
    """The two players as functions of their inputs, and these inputs.

    `networks`: from inputs [batch, ...] to outputs, in evaluation mode; `values`: the input of each
    from the batch of all devices; `local_rows`: selects this device's rows of [batch, ...].
    """

    networks: tuple[Callable[[Array], Outputs], Callable[[Array], Outputs]]
    values: tuple[Array, Array]
    local_rows: Callable[[Array], Array]


class InputPenalty(Protocol):
    """A part of a critic's loss that is evaluated at inputs other than the batch's."""

    def __call__(
        self,
        variables: Variables,
        players: PlayerInputs,
        scalars: Mapping[str, Scalars],
        key: Array,
    ) -> tuple[Mapping[str, Array], Metrics]:
        """Return term -> [], the mean over this device's rows, and means to be logged."""
        ...


class Critic(NamedTuple):
    """A network that reads the outputs of two players; `methods.with_critic` trains it.

    `loss` returns the terms in `scalars`. It trains the critic's params and the first player (the
    student); the outputs of the second (the teacher) are detached. `terms`: term -> its scalars;
    `layers`: pairs (student, teacher) of features that it reads. `coupled`: it mixes examples or
    its stats depend on them, so it gets the outputs of all devices. `needs`: entries of a batch
    that it reads besides "label" and "mask".

    `input_penalty`: a part that differentiates the players at their inputs, such as a penalty on
    the slope in the images; it trains both players (see `InputPenalty`).

    `own_terms`: terms that train the critic alone. `in_nats`: its metric "estimate" is mutual
    information in nats, at most ln(batch).
    """

    init: CriticInit
    loss: CriticLoss
    terms: Mapping[str, Mapping[str, Scalar]]
    layers: tuple[tuple[str, str], ...]
    coupled: bool = False
    needs: tuple[str, ...] = ()
    input_penalty: InputPenalty | None = None
    in_nats: bool = False
    own_terms: tuple[str, ...] = ()


def feature_width(outputs: Outputs, layer: str, critic: str) -> int:
    """Return the width of a layer that must be [batch, features]; errors begin with `critic`.

    Raises:
      UserError: no such layer, or one of another rank.
    """
    check_layer(critic, layer, outputs.features)
    shape = outputs.features[layer].shape
    if len(shape) != 2:
        raise UserError(f"{critic} reads [batch, features], but layer {layer!r} is {shape}")
    return shape[1]
