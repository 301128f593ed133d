"""Distillation: players, the terms that they minimise, and the methods that combine them."""

from kdjax.distill import terms
from kdjax.distill.methods.co_train import Pause, Player, co_train, player_hparams, switokd_pause
from kdjax.distill.methods.dependency import dependency
from kdjax.distill.methods.on_policy import on_policy
from kdjax.distill.methods.with_critic import (
    CriticRole,
    check_critic_hparams,
    critic_hparams,
    with_critic,
)

__all__ = [
    "CriticRole",
    "Pause",
    "Player",
    "check_critic_hparams",
    "co_train",
    "critic_hparams",
    "dependency",
    "on_policy",
    "player_hparams",
    "switokd_pause",
    "terms",
    "with_critic",
]
