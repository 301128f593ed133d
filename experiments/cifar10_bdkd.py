"""BD-KD on CIFAR-10: a wide ResNet and a narrow one are trained together.

The argument is TEACHER,STUDENT (default wrn_16_8,wrn_16_1). Data: tfds `cifar10`, prepared on
disk (see docs/own_data.md).

    python -m kdjax train --config=experiments/cifar10_bdkd.py --workdir=runs/cifar10_bdkd

200 epochs, batch 128, SGD .9, weight decay 5e-4, learning rate .1, x.1 at 100 and 150: the
settings of the SwitOKD table for this data. 5 % of the training images are held out for
validation. Three seeds are three members of one program.

Expected time: not measured; hours on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments import _bdkd

RECIPE = _bdkd.Recipe(
    pair="wrn_16_8,wrn_16_1",
    data={"name": "cifar10"},
    synthetic={"shape": (32, 32, 3), "num_classes": 10},
    images=47_500,
    epochs=200,
    decays=(100, 150),
)


def get_config(arg: str = "") -> ConfigDict:
    return _bdkd.experiment(arg, RECIPE)
