"""The summary of a report in sentences: training, selection and results."""

from collections import Counter

import numpy as np

from kdjax.report.metric_format import column_of, format_mean
from kdjax.report.results import RunSummary
from kdjax.report.statistics import (
    MOST_SWEPT,
    baseline_of,
    diverged,
    main_metrics,
    mean_over_seeds,
    paired,
    roles_of,
    short_names,
    summarise,
)


def summary(report: RunSummary, split: str = "test") -> str:
    """Summarise a run in a few sentences."""
    sentences = [
        _describe_training(report),
        _describe_selection(report),
        _describe_best(report, split),
    ]
    sentences.append(_describe_dropped(report))
    count = len(diverged(report))
    if count:
        total = sum(len(variant.members) for variant in report.variants)
        sentences.append(f"{count} of {total} members diverged.")
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_training(report: RunSummary) -> str:
    data, count = report.data, len(report.variants)
    sizes = ", ".join(f"{size:,} {split}" for split, size in data.sizes.items())
    where = f" on {data.name}" if data.name else ""
    examples = f" ({sizes} examples)" if sizes else ""
    length = ""
    if report.steps:
        length = f" for {report.steps:,} steps"
        length += f" of {report.batch_size:,} examples" if report.batch_size else ""
        length += f" ({report.epochs:.1f} epochs)" if report.epochs else ""
        tables = report.config.get("variants") or {}
        for variant in report.variants:
            # the name of a variant in a report may be its title, and the reverse
            table = tables.get(variant.name) or tables.get(variant.title) or {}
            own = table.get("num_steps")
            length += f", {variant.name} for {own:,} steps" if own else ""
    variants = "One variant was" if count == 1 else f"{count} variants were"
    return f"{variants} trained{where}{examples}{length}."


def _describe_selection(report: RunSummary) -> str:
    selection, over = report.selection, report.selection.over
    last = "All numbers are of the state after the last "
    last += "step" if report.complete else "finished step"
    if report.config.get("keep_best"):
        last += (
            "; the weights of the best validation are also kept (`eval --best`), whose "
            "validation score is biased: it is the best of several"
        )
    if not over:
        return f"{last}; nothing was chosen on any split."
    names = " and ".join(short_names(over).values())
    was = "was" if len(over) == 1 else "were"
    metric = column_of(selection.metric).title.removesuffix(" %")
    followers: dict[tuple[str, str], list[str]] = {}
    for variant in report.variants:
        for role, choice in variant.chosen.items():
            if variant.roles[role].trains and choice.judge not in (None, role):
                followers.setdefault((role, choice.judge or ""), []).append(variant.name)
    shared = "".join(
        f"; the {role} of {', '.join(variants)} is trained with the {judge} at the same values"
        for (role, judge), variants in followers.items()
    )
    choices = [choice for variant in report.variants for choice in variant.chosen.values()]
    each = all(set(over) <= set(choice.values) for choice in choices)  # all sweep the same paths
    chosen = f"For each variant, {names}" if each else names
    if len(over) > MOST_SWEPT:
        chosen = "The swept values of each variant"
    return (
        f"{last}. {chosen} {was} chosen by the mean {metric} on the {selection.split} split,"
        f" not on the test split{shared}."
    )


def _describe_dropped(report: RunSummary) -> str:
    members = [member for variant in report.variants for member in variant.members]
    counts = Counter(member.dropped for member in members if member.dropped is not None)
    if not counts:
        return ""
    (first, number), *later = sorted(counts.items())
    text = f"{number} of {len(members)} members were dropped after step {first:,}"
    more = [f"{number} after step {step:,}" for step, number in later]
    return " and ".join([", ".join([text, *more[:-1]]), *more[-1:]]) + "."


def _describe_best(report: RunSummary, split: str) -> str:
    role, metric = roles_of(report)[0], main_metrics(report)[0]
    column = column_of(metric)
    title = column.title.removesuffix(" %")
    means = {
        variant.name: summarise(variant, role, metric, split)
        for variant in report.variants
        if role in variant.roles
    }
    means = {name: mean for name, mean in means.items() if mean.n}
    if not means:
        return ""
    best = max(means, key=lambda name: means[name].mean)
    seeds = means[best].n
    over = "of one seed" if seeds == 1 else f"mean ± sd over {seeds} seeds"
    value = f"{format_mean(means[best], column)} % ({over})"
    if len(means) == 1:
        return f"The {role}'s {split} {title} is {value}."
    text = f"The highest {role} {split} {title} is that of {best}: {value}"
    baseline = baseline_of(report, role)
    if best == baseline.name or baseline.name not in means:
        return f"{text}."
    text += f"; {baseline.name} has {format_mean(means[baseline.name], column)} %."
    (best_variant,) = (variant for variant in report.variants if variant.name == best)
    pairs = paired(best_variant, baseline, role, metric, split)
    if pairs.size < 2:
        return text
    difference = mean_over_seeds(pairs)
    text += (
        f" Paired by seed, the difference is {format_mean(difference, column)} points and"
        f" positive in {int(np.sum(pairs > 0))} of {pairs.size} seeds."
    )
    if abs(difference.mean) <= difference.sd:
        text += " That is within one sd of the paired differences."
    return text
