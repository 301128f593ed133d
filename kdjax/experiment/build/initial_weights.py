"""Initial weights from files or earlier variants instead of random ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from kdjax import models
from kdjax.distill import Player
from kdjax.distill.methods.co_train import role_key
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.build.roles import Roles
from kdjax.experiment.config.schema import Role
from kdjax.models.io import class_order, convert, huggingface, huggingface_folder
from kdjax.models.io import export as model_export
from kdjax.models.io.huggingface_config import is_classifier
from kdjax.report import files, staging
from kdjax.types import Batch, Model, Spec, Variables


class Origins(NamedTuple):
    """Initial weights of a variant's players that are not random, by role."""

    variables: dict[str, Variables]  # from a file
    new_heads: list[str]  # roles whose file has no head for the task
    from_variant: dict[str, str]
    backbones: dict[str, Variables]


def find_initial_weights(
    roles: Roles,
    players: Mapping[str, Player],
    shapes: Mapping[str, Variables],
    data: TaskData,
    earlier: Mapping[str, Mapping[str, Variables]],
) -> Origins:
    """Read the initial weights of a variant.

    `shapes`: of the players' variables; `earlier`: the same of the variants that are trained
    before, by name.

    Raises:
      UserError: two origins for one role, an origin for a role with an adapter, or none for a
        frozen role or frozen parts of a detector; a file or an earlier variant that does not fit;
        an unknown earlier variant.
    """
    origins = Origins({}, [], {}, {})
    for role, player in players.items():
        where = f"roles.{role}"
        _check_origin(role, roles)
        table = _with_local_files(roles.config.roles[role], where)
        seen = data.read_by(table.input)
        spec = seen.source.spec
        if table.checkpoint is not None:
            with prefix_errors(f"{where}.checkpoint: "):
                data.task.check_files(seen.dataset, files.LocalPath(table.checkpoint))
                template = models.strip_wrappers(shapes[role])
                network, network_spec = data.task.describe_network(table.model.model_dump(), spec)
                variables, headless = load_initial_weights(table, network, template, network_spec)
            origins.variables[role] = variables
            if headless:
                origins.new_heads.append(role)
        elif table.from_variant is not None:
            if table.from_variant not in earlier:
                known = ", ".join(earlier) or "none"
                raise UserError(
                    f"{where}.from_variant is {table.from_variant!r}; earlier variants: {known}"
                )
            with prefix_errors(f"{where}.from_variant is {table.from_variant!r}: "):
                _check_variant(role, table, shapes[role], earlier[table.from_variant])
            origins.from_variant[role] = table.from_variant
        elif table.backbone is not None and player.trains:
            with prefix_errors(f"{where}.backbone: "):
                origins.backbones[role] = load_backbone(table.backbone, shapes[role], spec)
        elif player.trains:
            _check_frozen_parts(where, table.model.options)
        else:
            raise UserError(
                f"{where} has no terms, so it is frozen: set {where}.checkpoint (a folder "
                f"written by `export`) or {where}.from_variant, or give it terms"
            )
    return origins


def _check_variant(role: str, table: Role, own: Variables, source: Mapping[str, Variables]) -> None:
    """Refuse an earlier variant without this role, or with another network in it."""
    if role not in source:
        raise UserError(f"that variant has no role {role!r}; it has {', '.join(source)}")
    selected = select_layers(models.strip_wrappers(source[role]), table.keep_layers)
    own_shapes = {path: x.shape for path, x in models.flatten(models.strip_wrappers(own)).items()}
    convert.check_tensors(own_shapes, models.flatten(selected), f"its {role} has another network")


def _check_frozen_parts(where: str, options: Mapping[str, Any]) -> None:
    """Refuse frozen parts of a detector that are random."""
    if options.get("frozen_norm") or options.get("frozen_stages"):
        raise UserError(
            f"{where}.model has frozen_norm or frozen_stages, but random weights; set "
            f"{where}.backbone, or remove both"
        )


def _with_local_files(role: Role, where: str) -> Role:
    """Return a role that names local copies of what is in a bucket."""
    changes = {}
    for key in ("checkpoint", "backbone"):
        if (address := getattr(role, key)) is not None:
            with prefix_errors(f"{where}.{key}: "):
                if files.is_remote(address):
                    model_export.check_no_workdir(files.as_path(address), files.exists)
                changes[key] = staging.local_copy(address)
    return role.model_copy(update=changes)


def _check_origin(role: str, roles: Roles) -> None:
    table, where = roles.config.roles[role], f"roles.{role}"
    keys = ("checkpoint", "from_variant", "backbone")
    origins = [key for key in keys if getattr(table, key) is not None]
    if len(origins) > 1:
        raise UserError(f"{where} sets both {' and '.join(origins)}; remove one")
    if not origins and table.keep_layers:
        raise UserError(
            f"{where}.keep_layers is set, but nothing is read; set {where}.checkpoint or "
            f"{where}.from_variant, or remove it"
        )
    if origins and (adapters := list(roles.adapters(role))):
        raise UserError(
            f"{where} sets both {origins[0]} and adapters.{adapters[0]}; saved weights contain no "
            "adapter, so a network with an adapter must start at random"
        )


def load_initial_weights(
    role: Role, network: Mapping[str, Any], template: Variables, spec: Spec
) -> tuple[Variables, bool]:
    """Read the `checkpoint` of a role: a folder of kdjax's `export`, or of Hugging Face.

    With `keep_layers` only these layers of the file are used. `network`: the name and options of
    the role's network for this data; `template`: the shapes of its variables.

    Returns:
      The variables, and whether they need `init_head`: a trained classifier of Hugging Face whose
      file has no head for this task.

    Raises:
      UserError: another architecture, tensors that do not fit, or other data.
    """
    path = role.checkpoint or ""
    if is_huggingface(path):
        huggingface_folder.check_options(path, network, role.keep_layers)
        if normalised := huggingface_folder.read_normalisation(path):
            model_export.check_normalised(path, normalised, spec)
        return _load_huggingface(path, role, template, spec)
    if role.keep_layers:
        return _fit(path, role, model_export.restore(path, spec)[1], template), False
    return model_export.load(path, network, template, spec), False


def init_head(variables: Variables, seed: int) -> Variables:
    """Initialise the layers that a file lacks, which are zero: N(0, .02^2), bias 0."""
    return huggingface.draw_head(variables, jax.random.key(seed))


def load_backbone(path: str, template: Variables, spec: Spec) -> Variables:
    """Read the initial weights of a detector's backbone: a folder of `export` or `import`.

    Raises:
      UserError: a network other than the backbone, with another stem or another normalisation.
    """
    _, variables, description = model_export.restore(path)
    model_export.check_normalised(path, description, spec)
    network = description["model"]
    stem = network.get("stem", "cifar" if network["name"] == "MobileNetV2" else "imagenet")
    if stem != "imagenet":
        raise UserError(f"{path} has the stem {stem!r}; use weights with the stem 'imagenet'")
    models.with_backbone(template, variables)
    return variables


def init_detector_heads(
    model: Model, role: str, weights: Variables, seeds: Sequence[int], batch: Batch
) -> list[Variables]:
    """Return detectors with the same backbone and random heads, by seed, as in new detectors."""
    init = jax.jit(model.init)
    keys = [role_key(jax.random.key(seed), role) for seed in seeds]
    return [models.with_backbone(init(key, batch), weights) for key in keys]


def is_huggingface(path: str) -> bool:
    """Return whether a folder's config.json has a model_type."""
    try:
        return "model_type" in huggingface_folder.read_config(path)
    except UserError:
        return False


def select_layers(variables: Variables, layers: Sequence[int]) -> Variables:
    """Return the network with only these layers, or with all for ()."""
    return models.select_layers(variables, list(layers)) if layers else variables


def _load_huggingface(
    path: str, role: Role, template: Variables, spec: Spec
) -> tuple[Variables, bool]:
    try:
        variables = _fit(path, role, models.load_huggingface(path)[1], template)
    except UserError:
        if not is_classifier(huggingface_folder.read_options(path)[0]) or not role.terms:
            raise
    else:
        names = huggingface_folder.read_class_names(path)
        return class_order.in_data_order(variables, names, spec, path), False
    variables = huggingface.load_headless(path, spec.num_classes)[1]
    return _fit(path, role, variables, template), True


def _fit(path: str, role: Role, variables: Variables, template: Variables) -> Variables:
    with prefix_errors(f"{path} does not fit {role.model.name}: "):
        return models.restore(template, models.flatten(select_layers(variables, role.keep_layers)))
