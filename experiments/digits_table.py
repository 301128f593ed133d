"""All methods of the CIFAR-100 tables on digits, at their published weights.

Two convolutional networks of two layers; the teacher is trained first ("alone") and frozen, and
each row follows the teacher of its own seed for as many steps. Images are mirrored at random, so
that MLLD has two views. FSP, AB and FT first train for a tenth of the steps on their own term.

    python -m kdjax train --config=experiments/digits_table.py --workdir=runs/digits_table

Expected time: 49 minutes on 2 CPU cores that had ten other jobs, nearly all of it compiling 26
programs. Expected result: experiments/results/digits_table. The student has 95.0 % (sd 0.9 over 3
seeds) alone, 95.7 (0.3) with AB, 95.5 (0.3) with ND, 95.4 with KD and OFD: nothing is apart from
"alone". Weights were made for maps of 32 x 32 images: FT has 84.3 and SDD-DKD 89.3 (beta 8), and
AT, CAT-KD and MLLD fail at this learning rate.
"""

from ml_collections import ConfigDict

from experiments._methods import METHODS, following, roles_of, stages_of
from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    steps, teacher, student = (2, (4, 6), (2, 3)) if smoke else (600, (32, 64), (8, 16))
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    role = {"optimizer": optimizer, "terms": {"ce": {}}}
    config = ConfigDict(
        {
            "num_steps": steps,
            "batch_size": 16 if smoke else 64,
            "eval_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25, "augment": "flip"},
            "roles": {
                "teacher": {"model": {"name": "cnn", "widths": teacher}, **role},
                "student": {"model": {"name": "cnn", "widths": student}, **role},
            },
        }
    )
    frozen = {"teacher": {"terms": {"ce": None}, "from_variant": "alone"}}
    variants: dict = {"alone": {}}
    for name in METHODS:
        method = following(name, stages_of("bn{}", teacher, same=False), warm=steps // 10)
        roles = roles_of(method, optimizer)
        if name == "crd":
            roles["critic"]["model"] |= {"width": 32, "num_negatives": 256}
        variants[name] = {"roles": {**frozen, **roles}}
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    config.sweep = ConfigDict({"seed": (0,) if smoke else (0, 1, 2)}, sort_keys=False)
    return config
