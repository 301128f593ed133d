"""Players of a variant: network with the additions of its terms, pause rule, optimizer."""

from collections.abc import Mapping

from kdjax import models
from kdjax.distill import CriticRole, Player, switokd_pause, terms
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build import schedules
from kdjax.experiment.build.critics import schedules_on
from kdjax.experiment.build.models import PRECISIONS
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.build.roles import Roles
from kdjax.experiment.config import adapters, schema
from kdjax.train import optimizer
from kdjax.train.step import Optimizer
from kdjax.types import Model

PAUSES = {"switokd": switokd_pause}


def make_player(
    role: str, roles: Roles, data: TaskData, network: Model, critics: Mapping[str, CriticRole]
) -> Player:
    """Make the player of a role from its network."""
    table = roles.config.roles[role]
    if table.pause.watch and not table.pause.name:
        raise UserError(f"roles.{role}.pause.watch is set, but roles.{role}.pause.name is not")
    return Player(
        extend_network(role, roles, data, network, None),
        roles.terms[role],
        pause=(PAUSES[table.pause.name], table.pause.watch or "") if table.pause.name else None,
        trained_by_critic=roles.trained_by_critic(role),
        critic_schedules=schedules_on(role, critics),
        shares=_shares(role, table.regions, data),
    )


def extend_network(
    role: str, roles: Roles, data: TaskData, network: Model, axis_name: str | None
) -> Model:
    """Add cache, class means, second view, recomputation and adapters to a network.

    Raises:
      UserError: a cache of outputs that change, or wrong keys of an adapter.
    """
    table, model = roles.config.roles[role], network
    if table.cache:
        _check_cache(role, roles, data)
        size = data.source.size["train"]
        model = models.with_cache(model, size=size, layers=roles.layers_read(role))
    layer = roles.means_layer(role)
    if layer is not None:
        model = models.with_class_means(
            model,
            layer=layer,
            name=terms.class_means_name(layer),
            num_classes=data.source.spec.num_classes,
        )
    if roles.reads_second_view(role):
        model = models.with_second_view(model, name=terms.VIEW_LOGITS)
    if paths := {terms.parameter_name(path): path for path in roles.parameters(role)}:
        model = models.with_parameters(model, paths)
    if table.remat and roles.learns(role):
        model = models.with_remat(model)
    adapters = {}
    for name in roles.adapters(role):
        with prefix_errors(f"roles.{role}.adapters.{name}: "):
            precision = roles.config.precision
            adapters[name] = _make_adapter(table.adapters[name], precision, axis_name)
    return models.with_adapters(model, adapters) if adapters else model


def _make_adapter(table: adapters.Adapter, precision: str, axis_name: str | None) -> models.Adapter:
    if isinstance(table, adapters.LinearAdapter):
        return models.linear_adapter(layer=table.layer, width=table.width)
    if isinstance(table, adapters.NormDirectionAdapter):
        return models.norm_direction_adapter(
            layer=table.layer, width=table.width, dropout=table.dropout, axis_name=axis_name
        )
    if isinstance(table, adapters.ConnectorAdapter):
        return models.connector_adapter(
            layers=table.layers,
            widths=table.widths,
            relu=table.relu,
            dtype=PRECISIONS[precision],
            axis_name=axis_name,
        )
    return models.fusion_adapter(
        layers=table.layers,
        widths=table.widths,
        sizes=table.sizes,
        mid=table.mid,
        dtype=PRECISIONS[precision],
        axis_name=axis_name,
    )


def _check_cache(role: str, roles: Roles, data: TaskData) -> None:
    config = roles.config
    if roles.learns(role):
        raise UserError(f"roles.{role}.cache is set, but {role} trains: its outputs change")
    if data.source.spec.latents:
        raise UserError(f"roles.{role}.cache is set, but every pair of views is new; remove it")
    if config.data.augment != "none":
        raise UserError(
            f"roles.{role}.cache is set, but data.augment is {config.data.augment!r}, which "
            "changes the images at every step; set data.augment=none or cache=False"
        )


def _shares(role: str, guide: str | None, data: TaskData) -> tuple[str, tuple[str, ...]] | None:
    if guide is None:
        return None
    if data.task.rows_are_examples:
        raise UserError(f"roles.{role}.regions is {guide!r}, but the data has no boxes; remove it")
    return guide, models.REGION_KEYS


def player_optimizer(role: str, config: schema.Config) -> Optimizer:
    """Build the optimizer of a role, for `num_steps` steps."""
    table = config.roles[role].optimizer
    with prefix_errors(f"roles.{role}.optimizer: "):
        schedule = schedules.learning_rate_schedule(
            table.schedule.name,
            num_steps=config.num_steps,
            warmup_steps=table.schedule.warmup_steps,
            boundaries=table.schedule.boundaries,
            factor=table.schedule.factor,
        )
        return optimizer.make_optimizer(
            table.name,
            schedule,
            momentum=table.momentum,
            nesterov=table.nesterov,
            clip_norm=table.clip_norm,
            decay=table.decay,
        )
