"""Dependency: two encoders of two views, or one more term of distillation, and who measures it."""

from collections.abc import Mapping

from kdjax.distill.methods.co_train import Player, co_train
from kdjax.distill.methods.with_critic import with_critic
from kdjax.distill.terms import Critic, Ramp
from kdjax.types import Method, Model


def dependency(
    encoder_x: Model,
    encoder_y: Model,
    critic: Critic,
    *,
    roles: tuple[str, str, str] = ("encoder_x", "encoder_y", "critic"),
    inputs: tuple[str, str] = ("image", "view"),
    ramps: Mapping[str, Ramp] | None = None,
    axis_name: str | None = None,
) -> Method:
    """Learn representations of two views by the dependency between them; no labels, no logits.

    Both encoders and the critic ascend the critic's objective J(f), f(x, y) = critic(phi(x),
    psi(y)): CPC with any f; WPC or the dual with f held to be Lipschitz, by a penalty on its slope
    or by its layers. Only numbers of the critic are hyperparameters; encoders have an optimizer.

    Args:
      encoder_x: phi, reads the first entry of `inputs` (see `models.as_encoder`).
      encoder_y: psi, reads the second.
      critic: `critics.dependency(...)`, which says the objective and the metric.
      roles: names for the three.
      inputs: entries of a batch.
      ramps: by term, as for `with_critic`.
      axis_name: as in `co_train`; the negatives are those of all devices.

    Returns:
      A Method in which all three roles train.

    Raises:
      ValueError: as `with_critic`.

    Source: Ozair et al. 2019 (arXiv 1903.11780), reconstruction; CPC: van den Oord et al. 2018
      (arXiv 1807.03748).

    >>> from kdjax import models
    >>> from kdjax.distill import critics
    >>> x, y = (models.as_encoder(models.build("mlp", num_classes=8), entry=e)
    ...         for e in ("image", "view"))
    >>> dependency(x, y, critics.dependency(own_layer="embedding", peer_layer="embedding")).trains
    ('encoder_x', 'encoder_y', 'critic')
    """
    own, peer, role = roles
    models = {own: encoder_x, peer: encoder_y}
    players = {name: Player(model, {}, moved=True) for name, model in models.items()}
    return with_critic(
        co_train(players, axis_name=axis_name),
        role,
        critic,
        between=(own, peer),
        models=models,
        moves="both",
        inputs=inputs,
        ramps=ramps,
        axis_name=axis_name,
    )


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

    >>> from kdjax import models
    >>> from kdjax.distill import critics, terms
    >>> from kdjax.distill.methods import Player, co_train
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
