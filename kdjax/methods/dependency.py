"""Dependency as a distillation term: one more player, who measures how much two others share."""

from collections.abc import Mapping

from kdjax.methods.critic import with_critic
from kdjax.terms import Critic, Ramp
from kdjax.types import Method, Model


def with_dependency(
    method: Method,
    critic: Critic,
    *,
    models: Mapping[str, Model],
    between: tuple[str, str] = ("student", "teacher"),
    role: str = "dependency",
    ramps: Mapping[str, Ramp] | None = None,
    axis_name: str | None = None,
) -> Method:
    """Add the dependency between two players' features to any method, offline or co-training.

    L = L_method + weight (-J(f; x, stop y) + penalty x slope penalty of f): the first player and
    the critic both ascend J, the second player is not moved by it.

    Args:
      method: from `co_train`.
      critic: `critics.dependency(...)`.
      models: of these two roles.
      between: who learns, and from whom.
      role: a name for the critic.
      ramps: by term, as for `with_critic`.
      axis_name: as in `co_train`; the negatives are those of all devices.

    Returns:
      A Method with one more role that trains.

    Raises:
      ValueError: as `with_critic`.

    Source: new here; the measure is that of Ozair et al. 2019 (arXiv 1903.11780).

    >>> from kdjax import critics, models, terms
    >>> from kdjax.methods import Player, co_train
    >>> network, ce = models.build("mlp", num_classes=2), terms.make_term(terms.cross_entropy())
    >>> players = {"teacher": Player(network, {}), "student": Player(network, {"ce": ce})}
    >>> with_dependency(
    ...     co_train(players), critics.dependency(), models=dict.fromkeys(players, network)
    ... ).trains
    ('student', 'dependency')
    """
    return with_critic(
        method, role, critic, between=between, models=models, ramps=ramps, axis_name=axis_name
    )
