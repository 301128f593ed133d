"""The CIFAR-100 table, one method and one pair of networks a run: METHOD,PAIR.

The published recipe that the methods share: CE and the method at its published weight; batch 64,
SGD .9, learning rate .05, or .01 for MobileNetV2 and ShuffleNet, 240 epochs, x.1 at 150, 180 and
210, weight decay 5e-4. FSP, AB and FT train 30 epochs longer, first on their own term alone.
Methods are those of _methods.py (kd, hint, at, sp, cc, vid, rkd, pkt, ab, ft, fsp, nst, crd,
kdsvd, ofd, srrl, srd, cat_kd, nd, dkd, dist, logit_std, mlld, sdd_kd, sdd_dkd), pairs those of
_cifar100.py.

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar100.pth \
        --mean=.5071,.4867,.4408 --std=.2675,.2565,.2761 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar100_table.py:vid,res56_20 \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar100_table

Expected time: not measured; hours on one accelerator, three seeds as one program. Expected result:
not run here.
"""

from ml_collections import ConfigDict

from experiments._cifar100 import IMAGES, PAIRS, SMOKE, experiment
from experiments._methods import METHODS, Layers, following

BATCH, WARM_EPOCHS = 64, 30
WARM = ("fsp", "ab", "ft")
SMALL = ("res50_mv2", "res32x4_shv1", "res32x4_shv2")  # a smaller learning rate
# the teacher's batch norms before its levels
NORMS = {
    "resnet": ("layer1_*/bn2", "layer2_*/bn2", "layer3_*/bn2"),
    "wrn": ("block2_0/bn1", "block3_0/bn1", "bn1"),
    "ResNet": tuple(f"layer{stage}_*/bn3" for stage in (1, 2, 3, 4)),
    "cnn": ("bn1",),
}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    method, _, name = ("ofd", "", "res56_20") if smoke else (arg or "kd").partition(",")
    name = name or "res56_20"
    if method not in METHODS or name not in PAIRS:
        raise ValueError(f"{arg!r}: methods {', '.join(METHODS)}; pairs {', '.join(PAIRS)}")
    pair, epoch = SMOKE if smoke else PAIRS[name], IMAGES // BATCH
    warm = WARM_EPOCHS * epoch if method in WARM else 0
    chosen = following(method, layers_of(pair), warm=warm)
    optimizer = {"learning_rate": 0.01 if name in SMALL else 0.05}
    config = experiment(pair, chosen["terms"], chosen["adapters"], optimizer, BATCH, smoke)
    if warm:
        schedule = config.roles.student.optimizer.schedule
        schedule.boundaries = tuple(at + warm for at in schedule.boundaries)
        config.num_steps += warm
    for role, critic in chosen["critics"].items():
        own = {**critic, "optimizer": config.roles.student.optimizer.to_dict()}
        config.roles[role] = ConfigDict(own, sort_keys=False)
    return config


def layers_of(pair: dict) -> Layers:
    """Read the layers of a pair from its levels, of which the last one is the pooled vector."""
    before, widths, _, own_before = (level[:-1] for level in pair["levels"])
    stages, own_stages = (
        tuple(name.removesuffix("_pre") for name in names) for names in (before, own_before)
    )
    teacher, student = pair["teacher"][0], pair["student"][0]
    norms = next(norms for family, norms in NORMS.items() if teacher.startswith(family))
    same = (teacher, student) == ("resnet56", "resnet20")
    return Layers(
        own_stages, stages, own_before, before, norms, widths, pair["teacher"][1], same
    )  # fmt: skip
