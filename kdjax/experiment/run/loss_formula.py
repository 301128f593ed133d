"""The loss of a role as a formula, from its terms, for the report."""

from kdjax.distill.terms import Term
from kdjax.experiment.build.plan import Variant
from kdjax.train import sweep


def loss_formula(variant: Variant, role: str) -> str:
    """Return the loss of a role: "ce + 0.5 T^2 forward_kl(teacher, T = 4)"; "" if it is frozen.

    Scalars with default values are omitted, except temperatures. Terms of critics begin with the
    critic's name.
    """
    terms = variant.players[role].terms
    summands = [_summand(variant, role, name, term) for name, term in terms.items()]
    for critic, comparison in variant.critics.items():
        learners = comparison.between if comparison.moves == "both" else comparison.between[:1]
        summands += [f"{critic}.{name}" for name in comparison.terms if role in learners]
    return " + ".join(summands)


def _summand(variant: Variant, role: str, name: str, term: Term) -> str:
    numbers = []
    for key, scalar in term.spec.scalars.items():
        label, value = "T" if key == "temperature" else key, term.scalars[key]
        if _is_swept(variant, role, f"{name}.{key}"):
            numbers.append(f"{label} swept")
        elif key == "temperature" and term.temperature_schedule is not None:
            numbers.append(f"{label} = {value:g} to {term.temperature_schedule.to:g}")
        elif key == "temperature" or value != scalar.default:
            numbers.append(f"{label} = {value:g}")
    inside = ", ".join([*term.toward, *numbers])
    weight = term.scalars["weight"]
    factors = ["weight"] if _is_swept(variant, role, f"{name}.weight") else [f"{weight:g}"]
    factors = [] if factors == ["1"] else factors
    factors += ["ramp"] * (term.weight_schedule is not None)
    factors += ["T^2"] * term.scale_by_temperature_squared
    return " ".join([*factors, f"{name}({inside})" if inside else name])


def _is_swept(variant: Variant, role: str, path: str) -> bool:
    scalar = f"roles.{role}.terms.{path}"
    paths = [swept for swept in variant.members[0] if sweep.matches(swept, scalar)]
    return any(len({member[path] for member in variant.members}) > 1 for path in paths)
