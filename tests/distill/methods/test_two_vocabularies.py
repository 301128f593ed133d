"""Terms between language models whose vocabularies differ in size: from a config to two steps."""

import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from tests.data import tiny_text

TASK = "super_glue/copa"
WORDS = {"teacher": 80, "student": 64}
TERMS = ("universal_logit_distance", "multi_level_transport")


def config(folder, **terms):
    """Return a config of two trained networks, the student with these terms."""
    data = {"name": "text", "task": TASK, "path": str(tiny_text.write(folder, TASK))}
    form = {"form": "choices", "max_length": 48, "lengths": (), "too_long": "truncate"}
    following = {name: {"toward": "teacher", **scalars} for name, scalars in terms.items()}
    tables = {"teacher": {"ce": {}}, "student": {"ce": {}, **following}}
    network = {"name": "gpt_neo", "num_layers": 1, "width": 4, "num_heads": 2, "ffn_width": 4}
    return {
        "num_steps": 2,
        "batch_size": 4,
        "devices": 1,
        "tensorboard": False,
        "data": {**data, **form, "vocabulary_size": WORDS["student"], "validation": 0.2},
        "roles": {
            role: {
                "model": {**network, "vocab_size": WORDS[role]},
                "optimizer": {"name": "sgd", "learning_rate": 0.1},
                "terms": tables[role],
            }
            for role in WORDS
        },
    }


def test_two_steps(tmp_path):
    run = build(config(tmp_path, **{name: {} for name in TERMS}))
    program, state = make_program(run, MemberGroup(run.variants[0], (0,)), {})
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    metrics = []
    for _ in range(2):
        state, values = program.step(state, next(batches))
        metrics.append({k: float(v[0]) for k, v in program.layout.read(values).items()})
    for name in TERMS:
        raw = np.array([step[f"student/{name}/raw"] for step in metrics])
        assert (raw > 0).all()
        assert raw[0] != raw[1]
        weighted = [step[f"student/{name}/weighted"] for step in metrics]
        np.testing.assert_allclose(weighted, 1.5 * raw, rtol=1e-6)


def test_a_term_on_equal_vocabularies_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"roles.student.terms.forward_kl: layer 'token_logits'"):
        build(config(tmp_path, forward_kl={"layer": "token_logits"}))
