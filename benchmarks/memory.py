"""Device memory of a step of teacher and student, as reported by the compiler.

    python benchmarks/memory.py [--model=resnet8 --teacher=resnet20 --batch=128 --classes=100]

For each case the script compiles the step as `train` does and prints the same line as `train`;
nothing is run. The numbers are in `docs/scale.md`.
"""

import argparse

import jax

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.train import step_memory

CASES = {
    "as it is": {},
    "remat": {"remat": True},
    "accumulate 4": {"accumulate": 4},
    "accumulate 4, remat": {"accumulate": 4, "remat": True},
}


def config(args, remat=False, accumulate=1):
    """Return BD-KD on synthetic images of 32 pixels."""
    roles = {
        "teacher": {"model": {"name": args.teacher}, "terms": {"ce": {}, "forward_kl": {}}},
        "student": {"model": {"name": args.model}, "terms": {"ce": {}, "balanced_kl": {}}},
    }
    roles["teacher"]["terms"]["forward_kl"] = {"toward": "student"}
    roles["student"]["terms"]["balanced_kl"] = {"toward": "teacher"}
    for role in roles.values():
        role["remat"] = remat
    size = {"shape": (32, 32, 3), "num_classes": args.classes}
    return {
        "num_steps": 1,
        "batch_size": args.batch,
        "accumulate": accumulate,
        "devices": 1,
        "data": {"name": "synthetic", "on_device": False, **size},
        "roles": roles,
    }


def main():
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=100)
    args = parser.parse_args()
    print(f"{args.teacher} and {args.model}, batch {args.batch}, {jax.devices()[0].device_kind}")
    for name, options in CASES.items():
        run = build(config(args, **options))
        program, state = make_program(run, MemberGroup(run.variants[0], (0,)), {})
        batch = next(device_batches(run, program, 0))
        cost = step_memory.step_cost(program.step, program.layout.place(state), batch)
        print(f"{name:20} {step_memory.describe(cost) if cost else 'not reported by the compiler'}")


if __name__ == "__main__":
    main()
