"""SinKD on a task of GLUE: a 6-layer BERT is distilled from a 12-layer one by batch transport.

The loss is a KD + (1 - a) CE + b L_SD. KD is the soft cross-entropy at temperature T, annealed
linearly to 1 for tasks with "anneal". L_SD is 1e-3 times the transport cost summed over the batch
(T = 2, epsilon .1, 20 iterations). AdamW, clip 1, linear decay to 0, 128 tokens; the numbers below
are the published ones. Data as in glue_teacher.py, which trains the teacher.

    python -m kdjax train --config=experiments/glue_sinkd.py:rte \
        --config.data.path=glue --config.data.vocabulary=teachers/rte \
        --config.roles.teacher.checkpoint=teachers/rte \
        --config.roles.student.checkpoint=bert-6-layers --workdir=runs/glue_sinkd

To initialise the student from every second layer of the teacher, set instead
--config.roles.student.checkpoint=teachers/rte and
--config.roles.student.keep_layers="(0,2,4,6,8,10)". With the argument rte,online both networks are
trained: the teacher minimises its cross-entropy and the same transport toward the student.

The setting of stsb is not published: it uses squared errors, for KD those of the logits divided by
T. A single logit has no classes to transport, so stsb has no L_SD.

Expected time: not measured; minutes (rte) to hours (mnli, qqp) on one accelerator.

Expected result: not run here; the published table was not available.
"""

from ml_collections import ConfigDict

from experiments import _glue

SETTINGS = {  # anneal, batch, epochs, learning rate, a, T, b, seed
    "cola": (False, 16, 20, 5e-5, 0.9, 1.0, 0.8, 0),
    "mnli": (True, 16, 10, 4e-5, 0.8, 3.0, 0.8, 0),
    "mrpc": (True, 16, 3, 3e-5, 1.0, 4.0, 0.8, 0),
    "qnli": (False, 16, 6, 3e-5, 0.8, 3.0, 0.8, 0),
    "qqp": (True, 32, 8, 4e-5, 1.0, 4.0, 0.8, 0),
    "rte": (False, 16, 5, 2e-5, 0.9, 3.5, 0.8, 20),
    "sst2": (False, 32, 2, 4e-5, 0.9, 2.0, 0.8, 0),
    "stsb": (False, 16, 10, 4e-5, 0.9, 1.0, 0.0, 0),
}
TRANSPORT = {"temperature": 2.0, "epsilon": 0.1, "num_iters": 20}
SCALE = 1e-3  # factor of the sum in L_SD


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    task, _, option = ("rte" if smoke else arg or "rte").partition(",")
    if option not in ("", "online"):
        raise ValueError(f"no option {option!r}; there is online")
    _, batch, epochs, rate, *_, seed = SETTINGS[_glue.check(task)]
    steps = _glue.epoch(task, batch)
    num_steps = 2 if smoke else epochs * steps
    config = ConfigDict(
        {
            "seed": seed,
            "num_steps": num_steps,
            "batch_size": 4 if smoke else batch,
            "eval_every": steps,
            "checkpoint_every": steps,
            "data": _glue.data(task, smoke),
            "roles": {
                "teacher": {
                    "model": _glue.bert(12, smoke),
                    "optimizer": _glue.optimizer(rate),
                    "terms": learning_teacher(task) if option else {},
                },
                "student": {
                    "model": _glue.bert(6, smoke),
                    "optimizer": _glue.optimizer(rate),
                    "terms": distilled(task, num_steps),
                },
            },
            "sweep": {"seed": (seed,)},
            "select": {"role": "student", "metric": _glue.METRICS.get(task, "accuracy")},
        },
        sort_keys=False,
    )
    if smoke:
        config.variants = ConfigDict(variants(), sort_keys=False)
    return config


def distilled(task: str, num_steps: int) -> dict:
    """Return the student's terms."""
    anneal, _, _, _, a, temperature, b, _ = SETTINGS[task]
    soft = {"toward": "teacher", "weight": a, "temperature": temperature}
    if task == "stsb":
        return {"label_logit_mse": {"weight": 1 - a}, "logit_mse": soft}
    if anneal:
        soft["anneal"] = {"to": 1.0, "steps": num_steps}
    return {
        "ce": {"weight": 1 - a},
        "soft_cross_entropy": soft,
        "sinkhorn": {"toward": "teacher", "weight": b * SCALE, **TRANSPORT},
    }


def learning_teacher(task: str) -> dict:
    """Return the teacher's terms in online SinKD."""
    if task == "stsb":
        return {
            "label_logit_mse": {"weight": 1.0},
            "logit_mse": {"toward": "student", "weight": 0.1},
        }
    b = SETTINGS[task][6]
    return {
        "ce": {},
        "sinkhorn": {"toward": "student", "weight": b * SCALE, **TRANSPORT},
    }


def variants() -> dict:
    """Return variants for runs without a checkpoint: first the teacher, then the student."""
    return {
        "teacher": {"roles": {"teacher": {"terms": {"ce": {}}}, "student": None}},
        "student": {"roles": {"teacher": {"from_variant": "teacher"}}},
    }
