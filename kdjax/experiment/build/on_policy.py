"""The key `on_policy` of a role: texts that it completes itself."""

import math
from collections.abc import Mapping
from typing import Any

from kdjax.distill import on_policy
from kdjax.errors import UserError
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config.schema import Config, Role
from kdjax.models import Sampling
from kdjax.types import Method, Model


def add(
    method: Method,
    config: Config,
    data: TaskData,
    networks: Mapping[str, Model],
    axis_name: str | None,
) -> Method:
    """Return the method whose texts a role completes, or the method itself.

    Raises:
      UserError: several such roles, or one that cannot complete texts.
    """
    drawing = [role for role, table in config.roles.items() if table.on_policy.max_new_tokens]
    if not drawing:
        return method
    if len(drawing) > 1:
        raise UserError(
            f"roles.{drawing[0]}.on_policy and roles.{drawing[1]}.on_policy are set; one role "
            "completes the texts"
        )
    (role,) = drawing
    _check_role(role, config, data, networks)
    table = config.roles[role].on_policy
    end = data.dataset.tokenizer.end_id
    sampling = Sampling(table.max_new_tokens, top_p=table.top_p, eos_id=end)
    return on_policy(method, role, networks[role], sampling, axis_name=axis_name)


def _check_role(role: str, config: Config, data: TaskData, networks: Mapping[str, Model]) -> None:
    where = f"roles.{role}.on_policy"
    if role not in networks:
        raise UserError(f"{where} is set, but {role} is a critic; remove it")
    if "label" not in data.source.spec.inputs:
        raise UserError(f"{where} needs the texts of a language model; set data.name=lm")
    for other in networks:
        if config.roles[other].cache:
            raise UserError(f"roles.{other}.cache is set, but {where} changes the texts; remove it")
        if config.roles[other].input != Role().input:
            raise UserError(
                f"{where} is set, but {other} reads other tokens (roles.{other}.input); remove one"
            )


def hparams(table: Role) -> dict[str, Any]:
    """Return the numbers of a role that a sweep may vary."""
    if not table.on_policy.max_new_tokens:
        return {}
    numbers = table.on_policy
    return {"on_policy": {"share": numbers.share, "temperature": numbers.temperature}}


def check(numbers: Mapping[str, float]) -> None:
    """Refuse a share or a temperature that a sweep sets outside its range."""
    highest = {"share": 1.0, "temperature": math.inf}
    for name, value in numbers.items():
        if not (0 <= value <= highest[name] and math.isfinite(value)):
            limit = " and <= 1" if name == "share" else " and finite"
            raise UserError(f"{name} is {value:g}; it must be >= 0{limit}")
