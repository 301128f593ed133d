"""The description of one name of a config: a loss, a critic or a network."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import models
from kdjax.distill import critics, terms
from kdjax.distill.terms.spec import TermSpec, domain_text
from kdjax.errors import UserError, did_you_mean
from kdjax.experiment.config.resolve import options_of_factory, term_factory, term_options
from kdjax.models import registry, user_code

SIDE = 64  # height and width of the images for which layers are listed
CLASSES = 10
_TEACHERS = {
    "none": "It compares with labels only.",
    "each": "It compares with each role of `toward` and averages.",
    "all": "It compares with all roles of `toward` at once.",
}


def describe(name: str) -> str:
    """Return the lines of `kdjax list NAME`; a Python path runs the code of its file.

    Raises:
      UserError: an unknown name; the error has the nearest known one. No such file or object.
    """
    if user_code.is_path(name):
        return "\n".join(_user_loss(name) if _is_loss(name) else _user_network(name))
    tables = (
        (terms.TERM_SPECS, _term),
        (critics.names(), _critic),
        (models.names(), _network),
    )
    for names, lines in tables:
        if name in names:
            return "\n".join(lines(name))
    hint = did_you_mean(name, [entry for names, _ in tables for entry in names])
    raise UserError(
        f"no loss, critic or network is called {name!r}; {hint}see `python -m kdjax list`"
    )


def _is_loss(name: str) -> bool:
    """Return whether a Python path leads to a loss or a term, and not to a network."""
    value = user_code.load(name)
    if inspect.isclass(value) or not inspect.isroutine(value):
        return False
    if {"num_classes", "rngs"} & set(inspect.signature(value).parameters):
        return False
    try:
        term_factory("", name)
    except UserError:
        return False
    return True


def _user_loss(name: str) -> Iterator[str]:
    define = term_factory("", name)
    assert define is not None
    yield f'{name}: a loss, roles.<role>.terms.<term>.loss = "{name}"'
    yield from _loss_lines(define(), _summary(user_code.load(name)), options_of_factory(define))


def _user_network(name: str) -> Iterator[str]:
    yield f'{name}: a network, roles.<role>.model.name = "{name}"'
    yield "  options and defaults:"
    yield from _defaults(registry.default_options(name))
    try:
        yield from list(_layers(name, SIDE))
    except Exception as error:  # noqa: BLE001  its code may fail in any way, or need other inputs
        line = " ".join(str(error).split())
        yield f"  its layers cannot be listed for images of {SIDE} x {SIDE} x 3: {line}"


def _term(name: str) -> Iterator[str]:
    define: Callable[..., TermSpec] = terms.TERM_SPECS[name]
    yield f"{name}: a loss, roles.<role>.terms.{name}"
    yield from _loss_lines(define(), _summary(define), term_options()[name])


def _loss_lines(spec: TermSpec, summary: str, options: Mapping[str, Any]) -> Iterator[str]:
    if summary:
        yield f"  {summary}"
    yield f"  {_TEACHERS[spec.teachers]}"
    if spec.coupled:
        yield "  It compares the examples of a batch with each other."
    if spec.class_means is not None:
        yield "  It needs the class means of a frozen teacher, which the run computes."
    yield "  keys and defaults:"
    bounds = {key: domain_text(scalar) for key, scalar in spec.scalars.items()}
    yield from _defaults({"weight": 1.0, **options}, bounds)
    squared = "yes" if spec.scale_by_temperature_squared else "no"
    yield f"  multiplied by T^2 by default: {squared}"


def _critic(name: str) -> Iterator[str]:
    yield f"{name}: a critic, roles.<role>.model.name with roles.<role>.between"
    yield f"  {critics.describe(name)}"
    yield "  options and defaults:"
    yield from _defaults(critics.default_options(name))


def _network(name: str) -> Iterator[str]:
    options = registry.default_options(name)
    for key in ("axis_name", "dtype"):  # set by the keys `parallel` and `precision`
        options.pop(key, None)
    yield f"{name}: a network, roles.<role>.model.name"
    yield "  options and defaults:"
    yield from _defaults(options)
    yield from _layers(name, options.get("image_size") or SIDE)


def _layers(name: str, side: int) -> Iterator[str]:
    variables, features = _trace(name, side)
    yield f"  parameters with {CLASSES} classes: {models.parameter_count(variables):,}"
    yield f"  layers, for one image of {side} x {side} x 3 or one text of 16 tokens:"
    yield from (f"    {layer} {list(value.shape)}" for layer, value in features.items())


def _trace(name: str, side: int) -> tuple[Any, Mapping[str, Any]]:
    """Return the shapes of a network's variables and features, without computing them."""
    ids = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 16))
    ids |= dict.fromkeys(("choice_ids", "choice_mask"), (1, CLASSES, 4))
    batch = {key: jax.ShapeDtypeStruct(shape, jnp.int32) for key, shape in ids.items()}
    batch["image"] = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    model = models.build(name, num_classes=CLASSES)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)

    def apply(variables: Any, batch: Any) -> Any:
        return model.apply(variables, batch, train=False)[0].features

    return variables, jax.eval_shape(apply, variables, batch)


def _defaults(options: Mapping[str, Any], bounds: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a line for each key, with its default and its bounds."""
    for key, default in options.items():
        bound = (bounds or {}).get(key)
        yield f"    {key} = {json.dumps(default, default=str)}{f'  ({bound})' if bound else ''}"


def _summary(function: Any) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
