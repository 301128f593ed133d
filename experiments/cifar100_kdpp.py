"""KD++ on CIFAR-100: distillation with regularised feature norm and direction (ND).

CE + kd T^2 KL (T = 4, rising over 20 epochs) + nd ND, weights below; batch 128, Nesterov SGD .9,
learning rate .1, or .02 for ShuffleNet. 240 epochs, x.1 at 150, 180 and 210, weight decay 5e-4:
the published recipe. Where the pooled widths differ, ND compares through an adapter of batch
norm, dropout and a linear map, which is dropped at export. Class means are measured once before
training. The argument is one of the pairs below (default res56_20).

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar100.pth \
        --mean=.5071,.4867,.4408 --std=.2675,.2565,.2761 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar100_kdpp.py:res56_20 \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar100_kdpp

Expected time: not measured; hours on one accelerator, three seeds as one program.

Expected result: not run here. Published top-1 on test, all 50,000 images trained on:

                    teacher  student        KD++
    res56_20          72.34    69.06       72.53
    wrn40_2_40_1      75.61    71.98       74.59
    res32x4_8x4       79.42    72.50       75.54
    res50_mv2         79.34    64.60       70.10
    res32x4_shv1      79.42    70.50       75.45
    res32x4_shv2      79.42    71.82       76.42
"""

from ml_collections import ConfigDict

from experiments._cifar100 import choose, experiment, norm_direction, ramp

BATCH = 128
WEIGHTS = {  # kd, nd
    "res56_20": (1.0, 2.0),
    "wrn40_2_40_1": (1.0, 1.5),
    "res32x4_8x4": (3.5, 2.0),
    "res50_mv2": (3.0, 0.5),
    "res32x4_shv1": (2.5, 1.5),
    "res32x4_shv2": (4.0, 0.5),
}


def get_config(arg: str = "") -> ConfigDict:
    name, pair, smoke = choose(arg)
    kd, nd = WEIGHTS[name]
    term, adapters = norm_direction(pair, nd)
    following = {"weight": kd, "temperature": 4.0, **ramp(BATCH)}
    terms = {"ce": {}, "forward_kl": following, **term}
    optimizer = {"learning_rate": 0.02 if "_sh" in name else 0.1, "nesterov": True}
    return experiment(pair, terms, adapters, optimizer, BATCH, smoke)
