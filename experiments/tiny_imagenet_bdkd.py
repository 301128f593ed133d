"""BD-KD on Tiny-ImageNet: 200 classes, 100,000 images of 64 x 64.

The argument is TEACHER,STUDENT (default wrn_16_2,resnet20). Data: the folder layout of the public
archive (tiny-imagenet-200). The archive has no labelled test split, so its validation images are
the test split here, and 5 % of the training images are held out for validation.

    python -m kdjax train --config=experiments/tiny_imagenet_bdkd.py \
        --config.data.path=tiny-imagenet-200 --workdir=runs/tiny_imagenet_bdkd

200 epochs, batch 128, SGD .9, weight decay 5e-4, learning rate .01, x.1 at 100, 140 and 180: the
settings of the SwitOKD table for this data.

Expected time: not measured; hours on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments import _bdkd

RECIPE = _bdkd.Recipe(
    pair="wrn_16_2,resnet20",
    data={"name": "tiny_imagenet"},
    synthetic={"shape": (64, 64, 3), "num_classes": 200},
    images=95_000,
    epochs=200,
    decays=(100, 140, 180),
    rates=(0.01, 0.01),
)


def get_config(arg: str = "") -> ConfigDict:
    return _bdkd.experiment(arg, RECIPE)
