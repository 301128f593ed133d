"""Cost of a step with two networks compared with its parts.

A frozen teacher should add only its forward pass. Co-training should cost the sum of two steps:

    offline / (student step + teacher forward)        aim <= 1.05
    co-training / (teacher step + student step)       aim <= 1.05

Every call is compiled separately. Calls are interleaved; ratios are of medians.

    python benchmarks/step.py [--repeats=15] [--batch=64] [--only=mlp]
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import jax
from timing import medians, stepping

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.types import Variables

PAIRS = {
    "mlp": ({"name": "mlp", "hidden": (1024, 1024)}, {"name": "mlp", "hidden": (512,)}),
    "resnet": ({"name": "resnet20"}, {"name": "resnet8"}),
}
KL = {"temperature": 4.0}


def config(teacher: dict[str, Any], student: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return a config with synthetic images of CIFAR's size on one device."""
    return {
        "num_steps": 1000,
        "batch_size": batch,
        "devices": 1,
        "data": {"name": "synthetic", "shape": (32, 32, 3), "augment": "crop_flip"},
        "roles": {
            "teacher": {"model": teacher, "terms": {}},
            "student": {"model": student, "terms": {}},
        },
    }


def calls(teacher: dict[str, Any], student: dict[str, Any], batch: int) -> dict[str, Callable]:
    """Return the five calls to time, compiled and warm."""
    base = config(teacher, student, batch)
    ce, kl = {"ce": {}}, {"forward_kl": {**KL, "toward": "teacher"}}
    back = {"forward_kl": {**KL, "toward": "student"}}
    results = {}
    for name, terms in {
        "student step": {"student": ce},
        "teacher step": {"teacher": ce},
        "offline": {"student": {**ce, **kl}, "teacher": {}},
        "co-training": {"student": {**ce, **kl}, "teacher": {**ce, **back}},
    }.items():
        settings = copy.deepcopy(base)
        settings["roles"] = {r: {**settings["roles"][r], "terms": terms[r]} for r in terms}
        results[name] = stepper(settings)
    results["teacher forward"] = forward(base)
    return results


def stepper(settings: dict[str, Any]) -> Callable[[], None]:
    """Return a call that takes one training step; a frozen role is randomly initialised."""
    settings = copy.deepcopy(settings)
    frozen = [role for role, player in settings["roles"].items() if not player["terms"]]
    if frozen:  # as if from an earlier variant; no file is read
        trains = {"roles": {r: {"terms": {"ce": {}}, "from_variant": None} for r in frozen}}
        rest = {"roles": {r: None for r in settings["roles"] if r not in frozen}}
        settings["variants"] = {
            "first": {"roles": {**trains["roles"], **rest["roles"]}},
            "second": {},
        }
        settings["roles"] = {
            r: {**player, **({"from_variant": "first"} if r in frozen else {})}
            for r, player in settings["roles"].items()
        }
    run = build(settings)
    variant = run.variants[-1]
    initial: dict[str, tuple[Variables, bool]] = {}
    for role in frozen:
        batch = run.prepare_eval(next(run.source.evals["test"]()))
        model = variant.players[role].model
        initial[role] = (jax.jit(model.init)(jax.random.key(0), batch), False)
    program, state = make_program(run, MemberGroup(variant, (0,)), initial)
    return stepping(program.step, program.layout.place(state), device_batches(run, program, 0))


def forward(settings: dict[str, Any]) -> Callable[[], None]:
    """Return a call of the teacher's forward pass in evaluation mode on a prepared batch."""
    run = build(
        {**settings, "roles": {"teacher": {**settings["roles"]["teacher"], "terms": {"ce": {}}}}}
    )
    model = run.variants[0].players["teacher"].model
    raw = next(run.source.evals["train"]())
    batch = {k: v[: settings["batch_size"]] for k, v in run.prepare_eval(raw).items()}
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    apply = jax.jit(lambda v, b: model.apply(v, b, train=False)[0].logits)
    return lambda: jax.block_until_ready(apply(variables, batch))


def main() -> None:
    """Print the ratios of each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", choices=list(PAIRS), help="one pair of networks")
    args = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}, batch {args.batch}\n")
    print("| pair | offline / (student + teacher forward) | co-training / (teacher + student) |")
    print("|---|---:|---:|", flush=True)
    for name, (teacher, student) in PAIRS.items():
        if args.only not in (None, name):
            continue
        t = medians(calls(teacher, student, args.batch), args.repeats)
        offline = t["offline"] / (t["student step"] + t["teacher forward"])
        both = t["co-training"] / (t["teacher step"] + t["student step"])
        print(f"| {name} | {offline:.2f} | {both:.2f} |", flush=True)


if __name__ == "__main__":
    main()
