"""Alone, KD, DML and BD-KD at equal budget on 5,000 photographs with small CNNs.

Data: an .npz of CIFAR-10 images: 4,000 for training, 500 of them for validation, and 1,000 for
test. The images were compressed with JPEG, so published accuracies do not apply. Any .npz with
x_train, y_train, x_test, y_test of 32 x 32 images works. Teacher: a CNN with 5.4 times the
student's parameters.

    python -m kdjax train --config=experiments/cifar10_jpeg_compare.py \
        --config.data.path=cifar10_jpeg_5k.npz --workdir=runs/cifar10_jpeg

Every method sweeps the learning rate (4 values x 3 seeds, one program), selected on validation.

Expected time: about 25 minutes on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    data = {"name": "npz", "validation": 500, "augment": "crop_flip"}
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10, "validation": 0.2}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 810,  # 30 epochs of 3,500 images
            "batch_size": 16 if smoke else 128,
            "eval_every": 81,
            "checkpoint_every": 81,
            "data": data,
            "roles": {
                "teacher": {
                    "model": {"name": "cnn", "widths": (4, 8) if smoke else (24, 48, 96)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
                "student": {
                    "model": {"name": "cnn", "widths": (4,) if smoke else (10, 20, 40)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
            },
        }
    )
    variants = {
        "alone": {},
        "kd": {
            "roles": {
                "teacher": {"terms": {"ce": None}, "from_variant": "alone"},
                "student": {
                    "terms": {
                        "ce": {"weight": 0.1},
                        "forward_kl": {"toward": "teacher", "weight": 0.9, "temperature": 4.0},
                    }
                },
            }
        },
        "dml": {
            "roles": {
                "teacher": {"terms": {"forward_kl": {"toward": "student"}}},
                "student": {"terms": {"forward_kl": {"toward": "teacher"}}},
            }
        },
        "bdkd": {
            "roles": {
                "teacher": {"terms": {"forward_kl": {"toward": "student", "temperature": 2.0}}},
                "student": {
                    "terms": {
                        "balanced_kl": {"toward": "teacher", "temperature": 2.0, "emphasis": 2.0}
                    }
                },
            }
        },
    }
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    rates, seeds = ((0.1,), (0,)) if smoke else ((0.03, 0.1, 0.3, 1.0), (0, 1, 2))
    config.sweep = ConfigDict(
        {"roles.*.optimizer.learning_rate": rates, "seed": seeds},
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config
