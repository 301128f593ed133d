"""Distillation: who plays and what is minimised."""

from kdjax.distill import terms
from kdjax.distill.methods import (
    CriticRole,
    Pause,
    Player,
    check_critic_hparams,
    co_train,
    critic_hparams,
    dependency,
    player_hparams,
    switokd_pause,
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
    "player_hparams",
    "switokd_pause",
    "terms",
    "with_critic",
]
