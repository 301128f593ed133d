"""BD-KD on CIFAR-100 with the pairs of the published tables of online distillation.

The argument is TEACHER,STUDENT (default wrn_16_2,resnet20). Data: tfds `cifar100`, prepared on
disk (see docs/own_data.md).

    python -m kdjax train --config=experiments/cifar100_bdkd.py --workdir=runs/cifar100_bdkd
    python -m kdjax train --config=experiments/cifar100_bdkd.py:resnet32x4,resnet8x4 --workdir=...

300 epochs, batch 128, SGD .9, weight decay 5e-4, learning rate x.1 at 140, 200 and 250: the
settings of the SwitOKD table for this data. 5 % of the training images are held out for
validation. Three seeds are three members of one program.

Expected time: not measured; hours on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments import _bdkd

RECIPE = _bdkd.Recipe(
    pair="wrn_16_2,resnet20",
    data={"name": "cifar100"},
    synthetic={"shape": (32, 32, 3), "num_classes": 100},
    images=47_500,
    epochs=300,
    decays=(140, 200, 250),
    rates=(0.1, 0.01),
)


def get_config(arg: str = "") -> ConfigDict:
    return _bdkd.experiment(arg, RECIPE)
