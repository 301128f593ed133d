"""BD-KD on ImageNet at 64 x 64: two networks on 1.28 million streamed images.

The argument is TEACHER,STUDENT (default wrn_40_2,wrn_16_2). These networks are made for small
images, so the data set is tfds `imagenet_resized/64x64`; imagenet_kdpp.py has networks for
224 x 224. Images are decoded by worker processes (data.workers).

    python -m kdjax train --config=experiments/imagenet_bdkd.py --workdir=runs/imagenet_bdkd

120 epochs, batch 512, SGD .9, weight decay 1e-4, learning rate .1, x.1 at 30, 60 and 90: the
settings of the SwitOKD table for ImageNet. Computation is in bfloat16.

Expected time: not measured; days on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments import _bdkd

RECIPE = _bdkd.Recipe(
    pair="wrn_40_2,wrn_16_2",
    data={"name": "imagenet_resized/64x64", "workers": 8},
    synthetic={"shape": (64, 64, 3), "num_classes": 100},
    images=1_217_000,
    epochs=120,
    decays=(30, 60, 90),
    batch_size=512,
    weight_decay=1e-4,
    epochs_between_evaluations=1,
    precision="bfloat16",
    seeds=(0,),
)


def get_config(arg: str = "") -> ConfigDict:
    return _bdkd.experiment(arg, RECIPE)
