"""Methods: who plays and what is minimised."""

from kdjax.methods.co_train import Pause, Player, co_train, player_hparams, switokd_pause

__all__ = ["Pause", "Player", "co_train", "player_hparams", "switokd_pause"]
