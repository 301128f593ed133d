"""Representation learning: two encoders of two views, and the critic between them."""

from kdjax.distill.methods.co_train import Player, co_train
from kdjax.distill.methods.with_critic import CriticRole, with_critic
from kdjax.distill.terms import Critic
from kdjax.types import Method, Model


def dependency(
    encoder_x: Model,
    encoder_y: Model,
    critic: Critic,
    *,
    roles: tuple[str, str, str] = ("encoder_x", "encoder_y", "critic"),
    inputs: tuple[str, str] = ("image", "view"),
    axis_name: str | None = None,
) -> Method:
    """Learn representations of two views that depend on each other; no labels, no logits.

    Both encoders and the critic maximise the critic's objective J(f), f(x, y) = critic(phi(x),
    psi(y)): CPC with any f; WPC or the dual with an f that a penalty or its layers make Lipschitz.
    The hyperparameters are those of the critic.

    Args:
      encoder_x: phi, reads the first entry of `inputs` (see `models.as_encoder`).
      encoder_y: psi, reads the second.
      critic: `critics.dependency(...)`, which sets the objective and the metric.
      roles: role names of the two encoders and the critic.
      inputs: the entries of a batch that the encoders read.
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
    >>> options = critics.DependencyOptions(own_layer="embedding", peer_layer="embedding")
    >>> dependency(x, y, critics.dependency(options)).trains
    ('encoder_x', 'encoder_y', 'critic')
    """
    first, second, name = roles
    models = {first: encoder_x, second: encoder_y}
    players = {role: Player(model, {}, trained_by_critic=True) for role, model in models.items()}
    method = co_train(players, axis_name=axis_name)
    role = CriticRole(critic, (first, second), moves="both", inputs=inputs)
    return with_critic(method, name, role, models, axis_name=axis_name)
