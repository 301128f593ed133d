"""Fine-tuning of BERT on a task of GLUE: the teacher for glue_sinkd.py.

BERT base (12 layers, width 768) from a Hugging Face folder, AdamW, clip 1, linear decay to 0, 128
tokens; batch, epochs and learning rate below are the published ones. Data: the task's folder of
tsv files in data.path, or tfds. A tenth of the training file (at most 1,000 examples) is the
validation split; the official development set is the test split.

    python -m kdjax train --config=experiments/glue_teacher.py:rte \
        --config.data.path=glue --config.data.vocabulary=bert-base-uncased \
        --config.roles.teacher.checkpoint=bert-base-uncased --workdir=runs/glue_teacher
    python -m kdjax export --workdir=runs/glue_teacher --role=teacher --out=teachers/rte

Without a checkpoint the network is randomly initialised, and its score is far below that of a
pre-trained one. The settings of stsb are not published ones.

Expected time: not measured; minutes (rte) to hours (mnli, qqp) on one accelerator.

Expected result: not run here; the published table was not available.
"""

from ml_collections import ConfigDict

from experiments import _glue

SETTINGS = {  # batch, epochs, learning rate
    "cola": (2, 8, 2e-5),
    "mnli": (128, 7, 1e-5),
    "mrpc": (8, 10, 5e-5),
    "qnli": (8, 8, 2e-5),
    "qqp": (8, 5, 3e-6),
    "rte": (15, 10, 3e-5),
    "sst2": (16, 10, 2e-5),
    "stsb": (16, 10, 2e-5),
}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    task = _glue.check("rte" if smoke or not arg else arg)
    batch, epochs, rate = SETTINGS[task]
    steps = _glue.epoch(task, batch)
    term = "label_logit_mse" if task == "stsb" else "ce"
    return ConfigDict(
        {
            "num_steps": 2 if smoke else epochs * steps,
            "batch_size": 4 if smoke else batch,
            "eval_every": steps,
            "checkpoint_every": steps,
            "data": _glue.data(task, smoke),
            "roles": {
                "teacher": {
                    "model": _glue.bert(12, smoke),
                    "optimizer": _glue.optimizer(rate),
                    "terms": {term: {"weight": 1.0}},
                },
            },
            "sweep": {"seed": (0,)},
            "select": {"role": "teacher", "metric": _glue.METRICS.get(task, "accuracy")},
        },
        sort_keys=False,
    )
