"""The loss of a role as a formula, from its terms, for the report."""

from kdjax.experiment.build.plan import Variant


def loss_formula(variant: Variant, role: str) -> str:
    """Return what a role minimises: "ce + 0.5 T^2 forward_kl(teacher, T = 4)"; "" if nothing.

    A swept number is written as its name. A critic's term names the critic.
    """
    summands = []
    for name, term in variant.players[role].terms.items():
        numbers = {key: _number(variant, role, name, key, x) for key, x in term.scalars.items()}
        if term.temperature_schedule is not None:
            numbers["temperature"] += f" to {term.temperature_schedule.to:g}"
        factors = [numbers.pop("weight")]
        factors += ["ramp"] * (term.weight_schedule is not None)
        factors += ["T^2"] * term.scale_by_temperature_squared
        named = [f"{'T' if key == 'temperature' else key} = {x}" for key, x in numbers.items()]
        inside = ", ".join([*term.toward, *named])
        factors.append(f"{name}({inside})" if inside else name)
        summands.append(" ".join(factor for factor in factors if factor != "1"))
    for critic, comparison in variant.critics.items():
        learners = comparison.between if comparison.moves == "both" else comparison.between[:1]
        summands += [f"{critic}.{name}" for name in comparison.terms if role in learners]
    return " + ".join(summands)


def _number(variant: Variant, role: str, term: str, key: str, value: float) -> str:
    tail = f".terms.{term}.{key}"
    paths = {f"roles.{role}{tail}", f"roles.*{tail}"} & set(variant.members[0])
    swept = any(len({member[path] for member in variant.members}) > 1 for path in paths)
    return key if swept else f"{value:g}"
