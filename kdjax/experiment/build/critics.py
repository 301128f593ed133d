"""From the `roles` of a config that have `between` to critics: what compares two players."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdjax.distill import critics
from kdjax.distill.methods import (
    CriticRole,
    Player,
    check_critic_hparams,
    critic_hparams,
    with_critic,
)
from kdjax.experiment.build.schedules import weight_schedule
from kdjax.experiment.config.schema import Role, TemperatureAnneal, Term
from kdjax.types import Method, Source, UserError

# settings of players only
NOT_ITS = ("checkpoint", "from_variant", "backbone", "regions", "cache", "adapters")


def split(config: Mapping[str, Any], where: str) -> tuple[list[str], list[str]]:
    """The roles that are players and those that are critics; `where` begins an error.

    Raises:
      UserError: a critic between anything but two players, or with a setting that it cannot have.
    """
    roles = config["roles"]
    playing = [role for role, said in roles.items() if not said["between"]]
    judging = [role for role, said in roles.items() if said["between"]]
    for role in playing:
        if roles[role]["moves"] != Role().moves:
            raise UserError(
                f"{where}: roles.{role}.moves is set, but {role} is no critic; remove it, or give "
                "it `between`"
            )
    for role in judging:
        said, here = roles[role], f"{where}: roles.{role}"
        pair = tuple(said["between"])
        if len(pair) != 2 or len(set(pair)) != 2 or not set(pair) <= set(playing):
            raise UserError(
                f"{here}.between is {pair}; it must name two players of "
                f"{', '.join(playing) or 'none'}"
            )
        if said["model"].get("name") not in critics.names():
            known = ", ".join(critics.names())
            raise UserError(
                f"{here}.model.name is {said['model'].get('name')!r}; a role with `between` is a "
                f"critic, and there are {known}"
            )
        set_anyway = [key for key in NOT_ITS if said[key]]
        set_anyway += ["pause"] if said["pause"]["name"] else []
        set_anyway += ["input"] if said["input"] != Role().input else []
        if set_anyway:
            raise UserError(
                f"{here}.{set_anyway[0]} is set, but {role} is a critic, which starts at random "
                "with its run; remove it"
            )
    return playing, judging


def moves(role: str, config: Mapping[str, Any]) -> bool:
    """Whether a critic that moves both its players moves this one; it need not have terms then."""
    critics_of_both = (s for s in config["roles"].values() if s["moves"] == "both")
    return any(role in said["between"] for said in critics_of_both)


def layers(role: str, config: Mapping[str, Any]) -> list[str]:
    """The features of a player that critics look at."""
    found = []
    for said in config["roles"].values():
        if role in said["between"]:
            options = {key: value for key, value in said["model"].items() if key != "name"}
            pair = critics.layers(said["model"]["name"], options)
            found.append(pair[list(said["between"]).index(role)])
    return found


def make(role: str, config: Mapping[str, Any], labels: Callable[[], np.ndarray]) -> CriticRole:
    """Build the critic of a role; `labels()` are those of the training split."""
    said, where = config["roles"][role], f"roles.{role}"
    options = {key: value for key, value in said["model"].items() if key != "name"}
    try:
        critic = critics.build(said["model"]["name"], options, labels)
    except UserError as error:
        raise UserError(f"{where}.model: {error}") from error
    terms = {}
    for name, term in said["terms"].items():
        for key in ("toward", "temperature_squared"):
            if term[key]:
                raise UserError(f"{where}.terms.{name}.{key} is set; a critic's term has none")
        if term["anneal"] != TemperatureAnneal().model_dump():
            raise UserError(f"{where}.terms.{name}.anneal is set; a critic's term has none")
        extra = set(Term.model_fields) - {"weight"}
        terms[name] = {key: value for key, value in term.items() if key not in extra}
        for key, value in terms[name].items() if name in critic.terms else ():  # else: `hparams`
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{where}.terms.{name}.{key} is {value!r}; it must be a number")
    ramps = {
        name: ramp
        for name, term in said["terms"].items()
        if (ramp := weight_schedule(f"{where}.terms.{name}", term["ramp"])) is not None
    }
    first, second = said["between"]
    _check_networks(role, config, options)
    inputs = (config["roles"][first]["input"], config["roles"][second]["input"])
    return CriticRole(critic, (first, second), terms, ramps, said["moves"], inputs)


def _check_networks(role: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """A Lipschitz critic bounds the slope in the *inputs* only on top of Lipschitz encoders."""
    if options.get("metric") != "inputs" or "_" not in options.get("kind", "bilinear_bjorck"):
        return
    for player in config["roles"][role]["between"]:
        name = config["roles"][player]["model"].get("name")
        if name != "lipschitz_mlp":
            raise UserError(
                f"roles.{role}.model.metric is inputs, but {player} ({name}) has no bound on its "
                f"slope; set roles.{player}.model.name=lipschitz_mlp, or a plain kind of critic, "
                "whose slope is penalised, or metric=features"
            )


def hparams(role: str, found: CriticRole, rates: Mapping[str, float]) -> dict[str, Any]:
    """All numbers of a critic that a compiled step takes as arguments."""
    try:
        return critic_hparams(found.critic, found.terms, **rates)
    except UserError as error:
        raise UserError(f"roles.{role}: {error}") from error


def check(role: str, found: CriticRole, numbers: Mapping[str, Any]) -> None:
    """Refuse swept values outside their domains."""
    try:
        check_critic_hparams(found.critic, numbers["terms"])
    except UserError as error:
        raise UserError(f"roles.{role}.{error}") from error


def wrap(
    method: Method,
    found: Mapping[str, CriticRole],
    table: Mapping[str, Player],
    axis_name: str | None,
) -> Method:
    """Add the critics to a method of players."""
    networks = {role: player.model for role, player in table.items()}
    for role, comparison in found.items():
        method = with_critic(method, role, comparison, networks, axis_name=axis_name)
    return method


def training_labels(source: Source) -> np.ndarray:
    """Labels of the training split, in the order of its ids; one pass over a streamed set."""
    if source.arrays is not None:
        return np.asarray(source.arrays["label"])
    labels = np.zeros(source.size["train"], np.int32)
    for batch in source.evals["train"]():
        real = np.asarray(batch["mask"]) > 0
        labels[np.asarray(batch["id"])[real]] = np.asarray(batch["label"])[real]
    return labels
