"""ReviewKD on CIFAR-100: the student's levels, fused from deep to shallow, match the teacher's.

CE + the weight below times ReviewKD, rising over 20 epochs; batch 64, SGD .9 without Nesterov,
learning rate .05, or .01 for MobileNetV2 and ShuffleNet. 240 epochs, x.1 at 150, 180 and 210,
weight decay 5e-4: the published recipe. The fusion is an adapter of the student and is dropped at
export. The published scripts have no weight for res50_mv2: 8 is the weight of res32x4_shv2. The
argument is one of the pairs below (default res56_20).

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar100.pth \
        --mean=.5071,.4867,.4408 --std=.2675,.2565,.2761 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar100_reviewkd.py:res56_20 \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar100_reviewkd

Expected time: not measured; hours on one accelerator, three seeds as one program.

Expected result: not run here. Published top-1 on test, all 50,000 images trained on:

                    teacher  student    ReviewKD
    res56_20          72.34    69.06       71.89
    wrn40_2_40_1      75.61    71.98       75.09
    res32x4_8x4       79.42    72.50       75.63
    res50_mv2         79.34    64.60       69.89
    res32x4_shv1      79.42    70.50       77.45
    res32x4_shv2      79.42    71.82       77.78
"""

from ml_collections import ConfigDict

from experiments._cifar100 import choose, experiment, ramp, review

BATCH = 64
SMALL = ("res50_mv2", "res32x4_shv1", "res32x4_shv2")  # a smaller learning rate
WEIGHTS = {
    "res56_20": 0.6,
    "wrn40_2_40_1": 5.0,
    "res32x4_8x4": 5.0,
    "res50_mv2": 8.0,
    "res32x4_shv1": 5.0,
    "res32x4_shv2": 8.0,
}


def get_config(arg: str = "") -> ConfigDict:
    name, pair, smoke = choose(arg)
    term, adapters = review(pair, {"weight": WEIGHTS[name], **ramp(BATCH)})
    terms = {"ce": {}, **term}
    optimizer = {"learning_rate": 0.01 if name in SMALL else 0.05}
    return experiment(pair, terms, adapters, optimizer, BATCH, smoke)
