"""The loss of a role as a formula, from its terms, for the report."""

from kdjax.distill.terms import Term
from kdjax.experiment.build.plan import Variant
from kdjax.train import sweep


def loss_formula(variant: Variant, role: str) -> str:
    """Return the loss of a role: "ce + 0.5 T^2 forward_kl(teacher, T = 4)"; "" if it is frozen.

    Scalars with default values are omitted, except temperatures. Terms of critics begin with the
    critic's name; those that train the critic alone are omitted.
    """
    terms = variant.players[role].terms
    summands = [_summand(variant, role, name, term) for name, term in terms.items()]
    for critic, comparison in variant.critics.items():
        learners = comparison.between if comparison.moves == "both" else comparison.between[:1]
        for name, scalars in comparison.terms.items():
            if role in learners and name not in comparison.critic.own_terms:
                factors = _factors(variant, critic, name, scalars["weight"])
                factors += ["ramp"] * (name in comparison.weight_schedules)
                summands.append(" ".join([*factors, f"{critic}.{name}"]))
    return " + ".join(summands)


def _summand(variant: Variant, role: str, name: str, term: Term) -> str:
    numbers = []
    for key, scalar in term.spec.scalars.items():
        if key == "weight":  # a factor of the term
            continue
        label, value = "T" if key == "temperature" else key, term.scalars[key]
        if _is_swept(variant, role, f"{name}.{key}"):
            numbers.append(f"{label} swept")
        elif key == "temperature" and term.temperature_schedule is not None:
            numbers.append(f"{label} = {value:g} to {term.temperature_schedule.to:g}")
        elif key == "temperature" or value != scalar.default:
            numbers.append(f"{label} = {value:g}")
    inside = ", ".join([*term.toward, *numbers])
    factors = _factors(variant, role, name, term.scalars["weight"])
    factors += ["ramp"] * (term.weight_schedule is not None)
    factors += ["T^2"] * term.scale_by_temperature_squared
    return " ".join([*factors, f"{name}({inside})" if inside else name])


def _factors(variant: Variant, role: str, name: str, weight: float) -> list[str]:
    """Return the weight of a term, unless it is 1."""
    if _is_swept(variant, role, f"{name}.weight"):
        return ["weight"]
    return [] if weight == 1 else [f"{weight:g}"]


def _is_swept(variant: Variant, role: str, path: str) -> bool:
    scalar = f"roles.{role}.terms.{path}"
    paths = [swept for swept in variant.members[0] if sweep.matches(swept, scalar)]
    return any(len({member[path] for member in variant.members}) > 1 for path in paths)
