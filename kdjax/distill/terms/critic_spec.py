"""What a critic is: a loss between two players that has parameters and a memory of its own."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kdjax.distill.terms.spec import Scalar
from kdjax.types import Array, Batch, Metrics, Outputs, PyTree, Scalars, Variables


class CriticInit(Protocol):
    """Make the variables; of `own`, `peer` and `batch` only the shapes matter."""

    def __call__(self, key: Array, own: Outputs, peer: Outputs, batch: Batch) -> Variables:
        """Return params, and stats: whatever changes without a gradient."""
        ...


class CriticLoss(Protocol):
    """Compare the outputs of two players; `scalars` is term -> scalar -> value, no weights."""

    def __call__(
        self,
        variables: Variables,
        own: Outputs,
        peer: Outputs,
        batch: Batch,
        scalars: Mapping[str, Scalars],
        key: Array,
    ) -> tuple[Mapping[str, Array], PyTree, Metrics]:
        """Return term -> [batch] or [], the stats after this batch, and scalars to be logged."""
        ...


class Through(Protocol):
    """A part of a critic's loss at other inputs than the batch's.

    `networks`: of the two players, from inputs [batch, ...] to outputs, in evaluation mode; `x` and
    `y`: what they read of the batch of all devices; `share`: keeps of a [batch, ...] array the rows
    of this device.
    """

    def __call__(
        self,
        variables: Variables,
        networks: tuple[Callable[[Array], Outputs], Callable[[Array], Outputs]],
        x: Array,
        y: Array,
        share: Callable[[Array], Array],
        scalars: Mapping[str, Scalars],
        key: Array,
    ) -> tuple[Mapping[str, Array], Metrics]:
        """Return term -> [], the mean over this device's rows, and scalars to be logged, alike."""
        ...


class Critic(NamedTuple):
    """A network that reads the outputs of two players, as `methods.with_critic` trains it.

    What `loss` returns is minimised by the critic's params and by the first of the two players;
    the second one's outputs arrive detached. It returns the terms that `scalars` names. `terms`:
    term -> its scalars; `layers`: pairs (own, peer) of features that it looks at. `coupled`: it
    mixes examples or its stats depend on them, hence it sees the outputs of all devices. `needs`:
    entries of a batch that it reads beside "label" and "mask".

    `through`: what it adds that looks *through* the players at their inputs, such as a penalty on
    the slope in the images; it then moves both players (see `Through`).

    `in_nats`: its metric "estimate" is mutual information in nats, at most ln(batch).
    """

    init: CriticInit
    loss: CriticLoss
    terms: Mapping[str, Mapping[str, Scalar]]
    layers: tuple[tuple[str, str], ...]
    coupled: bool = False
    needs: tuple[str, ...] = ()
    through: Through | None = None
    in_nats: bool = False
