"""Hinton's distillation (KD) on CIFAR-100: the baseline of every published table.

.1 CE + .9 T^2 KL, T = 4; batch 64, SGD .9 without Nesterov, learning rate .05, or .01 for
MobileNetV2 and ShuffleNet. 240 epochs, x.1 at 150, 180 and 210, weight decay 5e-4: the published
recipe. The argument is one of the pairs below (default res56_20).

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar100.pth \
        --mean=.5071,.4867,.4408 --std=.2675,.2565,.2761 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar100_kd.py:res56_20 \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar100_kd

Expected time: not measured; hours on one accelerator, three seeds as one program.

Expected result: not run here. Published top-1 on test, all 50,000 images trained on:

                    teacher  student          KD
    res56_20          72.34    69.06       70.66
    wrn40_2_40_1      75.61    71.98       73.54
    res32x4_8x4       79.42    72.50       73.33
    res50_mv2         79.34    64.60       67.65
    res32x4_shv1      79.42    70.50       74.07
    res32x4_shv2      79.42    71.82       74.45
"""

from ml_collections import ConfigDict

from experiments._cifar100 import choose, experiment

BATCH = 64
SMALL = ("res50_mv2", "res32x4_shv1", "res32x4_shv2")  # a smaller learning rate


def get_config(arg: str = "") -> ConfigDict:
    name, pair, smoke = choose(arg)
    terms = {"ce": {"weight": 0.1}, "forward_kl": {"weight": 0.9, "temperature": 4.0}}
    optimizer = {"learning_rate": 0.01 if name in SMALL else 0.05}
    return experiment(pair, terms, {}, optimizer, BATCH, smoke)
