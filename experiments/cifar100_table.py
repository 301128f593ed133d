"""The CIFAR-100 table, one method and one pair of networks a run: METHOD,PAIR.

Methods are those of _methods.py (kd, hint, at, sp, cc, vid, rkd, pkt, ab, ft, fsp, nst, crd, kdsvd,
ofd, srrl, srd, cat_kd, nd, dkd, dist, logit_std, mlld, sdd_kd, sdd_dkd), with DKD's beta of each
pair, and reviewkd, kdpp, dkdpp, distpp and reviewkdpp: "pp" adds the norm and direction of
features (ND). Pairs are those below. The published recipes:

- CE and the method at its weight; batch 64, SGD .9, learning rate .05, or .01 for MobileNetV2 and
  ShuffleNet. FSP, AB and FT train 30 epochs longer, first on their own term alone.
- "pp": batch 128, Nesterov SGD .9, learning rate .1, or .02 for ShuffleNet. Where the pooled widths
  differ, ND compares through an adapter of batch norm, dropout and a linear map.
- All: 240 epochs, x.1 at 150, 180 and 210, weight decay 5e-4. The weights of DKD, ReviewKD and
  "pp", ND aside, rise over 20 epochs. The published scripts have no weight of ReviewKD for
  res50_mv2: 8 is that of res32x4_shv2.

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar100.pth \
        --mean=.5071,.4867,.4408 --std=.2675,.2565,.2761 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar100_table.py:vid,res56_20 \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar100_table

Expected time: not measured; hours on one accelerator, three seeds as one program.

Expected result: not run here. Published top-1 on test, all 50,000 images trained on:

                 teacher student    KD  DIST   DKD ReviewKD  KD++ DIST++ DKD++ ReviewKD++
    res56_20       72.34   69.06 70.66 71.78 71.97    71.89 72.53  72.52 72.16      72.05
    wrn40_2_40_1   75.61   71.98 73.54 74.42 74.81    75.09 74.59  75.00 75.02      75.66
    res32x4_8x4    79.42   72.50 73.33 75.79 75.44    75.63 75.54  76.13 76.28      76.07
    res50_mv2      79.34   64.60 67.65 69.17 70.35    69.89 70.10  69.80 70.82      70.45
    res32x4_shv1   79.42   70.50 74.07 75.23 76.45    77.45 75.45  75.60 77.11      77.68
    res32x4_shv2   79.42   71.82 74.45 76.08 77.07    77.78 76.42  76.64 77.49      77.93
"""

from ml_collections import ConfigDict

from experiments import _cifar100
from experiments._methods import METHODS, Layers, following

WARM_EPOCHS = 30
WARM = ("fsp", "ab", "ft")
SMALL = ("res50_mv2", "res32x4_shv1", "res32x4_shv2")  # a smaller learning rate
# the teacher's batch norms before its levels
NORMS = {
    "resnet": ("layer1_*/bn2", "layer2_*/bn2", "layer3_*/bn2"),
    "wrn": ("block2_0/bn1", "block3_0/bn1", "bn1"),
    "ResNet": tuple(f"layer{stage}_*/bn3" for stage in (1, 2, 3, 4)),
    "cnn": ("bn1",),
}
# methods whose weights rise and depend on the pair: the term, and its scalars in the order of PAIRS
RISING: dict = {
    "dkd": ("decoupled_kl", {"alpha": (1.0,) * 6, "beta": (2.0, 6.0, 8.0, 8.0, 8.0, 8.0)}),
    "reviewkd": ("hierarchical_context", {"weight": (0.6, 5.0, 5.0, 8.0, 5.0, 8.0)}),
    "kdpp": (
        "forward_kl",
        {"weight": (1.0, 1.0, 3.5, 3.0, 2.5, 4.0), "nd": (2.0, 1.5, 2.0, 0.5, 1.5, 0.5)},
    ),
    "dkdpp": (
        "decoupled_kl",
        {
            "alpha": (2.5, 1.0, 2.0, 0.5, 0.5, 0.5),
            "beta": (4.0, 6.0, 8.0, 8.0, 8.0, 6.0),
            "nd": (3.5, 1.0, 0.5, 1.0, 4.0, 0.5),
        },
    ),
    "distpp": (
        "correlation",
        {"weight": (2.0, 2.5, 1.5, 7.0, 2.5, 3.0), "nd": (1.0, 3.0, 4.0, 1.0, 3.0, 4.0)},
    ),
    "reviewkdpp": (
        "hierarchical_context",
        {"weight": (1.2, 5.0, 8.0, 6.0, 7.0, 8.0), "nd": (1.0, 4.0, 1.0, 2.0, 1.0, 1.5)},
    ),
}
NAMES = (*METHODS, *(name for name in RISING if name not in METHODS))


def get_config(arg: str = "") -> ConfigDict:
    method, _, name = ("ofd,smoke" if arg == "smoke" else arg or "kd").partition(",")
    if method not in NAMES:
        raise ValueError(f"no method {method!r}; there are {', '.join(NAMES)}")
    name, pair, smoke = _cifar100.choose(name)
    plus = method.endswith("pp")
    batch, rate = (128, 0.1) if plus else (64, 0.05)
    if name in SMALL and (not plus or "_sh" in name):
        rate /= 5
    epoch = _cifar100.IMAGES // batch
    warm = WARM_EPOCHS * epoch if method in WARM else 0
    if method in RISING:
        chosen = rising(method, name, pair, epoch)
    else:
        chosen = following(method, layers_of(pair), warm=warm)
    optimizer = {"learning_rate": rate, **({"nesterov": True} if plus else {})}
    terms, adapters = chosen["terms"], chosen["adapters"]
    config = _cifar100.experiment(pair, terms, adapters, optimizer, batch, smoke)
    if warm:
        schedule = config.roles.student.optimizer.schedule
        schedule.boundaries = tuple(at + warm for at in schedule.boundaries)
        config.num_steps += warm
    for role, critic in chosen["critics"].items():
        own = {**critic, "optimizer": config.roles.student.optimizer.to_dict()}
        config.roles[role] = ConfigDict(own, sort_keys=False)
    return config


def rising(method: str, name: str, pair: dict, epoch: int) -> dict:
    """Return a method of RISING as `following` returns the others."""
    term, scalars = RISING[method]
    index = list(_cifar100.PAIRS).index(name)
    own = {key: values[index] for key, values in scalars.items()}
    nd = own.pop("nd", None)
    own |= {"ramp": {"name": "linear", "steps": _cifar100.RAMP * epoch}}
    terms, adapters = {"ce": {}, term: {"temperature": 4.0, **own}}, {}
    if term == "hierarchical_context":
        peer_layers, widths, sizes, layers = pair["levels"]
        terms[term] = {**own, "peer_layers": peer_layers}
        adapters["review"] = {"kind": "fusion", "layers": layers, "widths": widths, "sizes": sizes}
    if nd is not None:
        terms["norm_direction"] = {"weight": nd}
        width = pair["teacher"][1]
        if width != pair["student"][1]:
            terms["norm_direction"] |= {"own_layer": "projected"}
            own = {"kind": "norm_direction", "layer": "pooled", "width": width}
            adapters["projected"] = own
    return {"terms": terms, "adapters": adapters, "critics": {}}


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
