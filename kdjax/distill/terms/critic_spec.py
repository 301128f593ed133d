"""Critics: losses between two players that have parameters and a memory of their own."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kdjax.distill.terms.spec import Scalar
from kdjax.errors import UserError, check_layer
from kdjax.types import Array, Batch, Metrics, Outputs, PyTree, Scalars, Variables


class CriticInit(Protocol):
    """Make the variables; of `student`, `teacher` and `batch` only the shapes matter."""

    def __call__(self, key: Array, student: Outputs, teacher: Outputs, batch: Batch) -> Variables:
        """Return params, and stats: whatever changes without a gradient."""
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

    `networks`: from inputs [batch, ...] to outputs, in evaluation mode; `values`: what each reads
    of the batch of all devices; `local_rows`: keeps of a [batch, ...] array this device's rows.
    """

    networks: tuple[Callable[[Array], Outputs], Callable[[Array], Outputs]]
    values: tuple[Array, Array]
    local_rows: Callable[[Array], Array]


class InputPenalty(Protocol):
    """A part of a critic's loss at other inputs than the batch's."""

    def __call__(
        self,
        variables: Variables,
        players: PlayerInputs,
        scalars: Mapping[str, Scalars],
        key: Array,
    ) -> tuple[Mapping[str, Array], Metrics]:
        """Return term -> [], the mean over this device's rows, and such means to be logged."""
        ...


class Critic(NamedTuple):
    """A network that reads the outputs of two players, as `methods.with_critic` trains it.

    The critic's params and the first of the two players (the student) minimise what `loss`
    returns; the second one's outputs (the teacher's) arrive detached. It returns the terms that
    `scalars` names. `terms`: term -> its scalars; `layers`: pairs (student, teacher) of features
    that it reads. `coupled`: it mixes examples or its stats depend on them, hence it sees the
    outputs of all devices. `needs`: entries of a batch that it reads besides "label" and "mask".

    `input_penalty`: a part that differentiates the players at their inputs, such as a penalty on
    the slope in the images; it then trains both players (see `InputPenalty`).

    `in_nats`: its metric "estimate" is mutual information in nats, at most ln(batch).
    """

    init: CriticInit
    loss: CriticLoss
    terms: Mapping[str, Mapping[str, Scalar]]
    layers: tuple[tuple[str, str], ...]
    coupled: bool = False
    needs: tuple[str, ...] = ()
    input_penalty: InputPenalty | None = None
    in_nats: bool = False


def feature_width(outputs: Outputs, layer: str, critic: str) -> int:
    """Return the width of a layer that must be [batch, features]; `critic` begins the error.

    Raises:
      UserError: no such layer, or one of another rank.
    """
    check_layer(critic, layer, outputs.features)
    shape = outputs.features[layer].shape
    if len(shape) != 2:
        raise UserError(f"{critic} reads [batch, features], but layer {layer!r} is {shape}")
    return shape[1]
