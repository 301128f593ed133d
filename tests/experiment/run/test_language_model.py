"""Runs of language models: config to report, export, resume, devices, errors in one line."""

import json
import shutil

import jax
import numpy as np
import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.build.build import build, with_test_data
from kdjax.experiment.run import train as running
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.models.io import export as model_export
from kdjax.types import Variables
from tests.data import tiny_language
from tests.faults.commands import experiment, train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(folder, prompts=False, **changes):
    """Return a config of four steps, of two Llamas of one layer."""
    kd = {"ce": {}, "forward_kl": {"toward": "teacher", "weight": 0.5}}
    settings = {
        "num_steps": 4,
        "batch_size": 4,
        "eval_batch_size": 4,
        "devices": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "tensorboard": False,
        "data": {
            "name": "lm",
            "path": str(tiny_language.write(folder, prompts)),
            "max_length": 24,
            "bpe_size": 280,
            "validation": 4,
            "test": 4,
        },
        "roles": {
            "teacher": {"model": network(8), "terms": {"ce": {}}},
            "student": {"model": network(4), "terms": kd},
        },
    }
    for role in settings["roles"].values():
        role["optimizer"] = {"name": "adamw", "learning_rate": 1e-2}
    return {**settings, **changes}


def network(width, **options):
    return {"name": "llama", "num_layers": 1, "width": width, "num_heads": 2, **options}


def first_step(settings):
    """Return the metrics of the first step of the first variant."""
    run = build(settings)
    variant = run.variants[0]
    program, state = make_program(run, MemberGroup(variant, (0,)), {})
    state, metrics = program.step(
        program.layout.place(state), next(device_batches(run, program, 0))
    )
    return {name: float(np.ravel(x)[0]) for name, x in program.layout.read(metrics).items()}


def test_from_a_config_to_an_export(tmp_path, capsys):
    path, folder = experiment(tmp_path, config(tmp_path)), tmp_path / "run"
    assert cli.main(train(path, folder)) == 0
    report = json.loads((folder / "report.json").read_text())
    scores = report["variants"][0]["members"][0]["results"]["test"]
    names = {"bits_per_byte", "nll", "perplexity", "accuracy", "ece"}
    assert {f"student/{name}" for name in names} | {"agreement"} <= set(scores)
    # an untrained network gives all 281 words the same probability
    assert scores["student/nll"] < np.log(281)
    assert any("test: 4 documents" in line for line in report["data"]["notes"])
    assert (folder / "tokenizer.json").is_file()
    flags = ["--prompt", "The", "--max-new-tokens=3", "--temperature=0"]
    assert cli.main(["generate", f"--workdir={folder}", "--role=student", *flags]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("The")
    assert all(set(t["texts"]) == {"default, teacher", "default, student"} for t in report["texts"])
    assert "<pre>" in (folder / "report.html").read_text()
    out = tmp_path / "student"
    assert cli.main(["export", f"--workdir={folder}", "--role=student", f"--out={out}"]) == 0
    model, variables, described = model_export.restore(out)
    ids = np.arange(6)[None]
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    outputs, _ = model.apply(variables, batch, train=False)
    assert outputs.logits.shape == (6, described["vocab_size"])
    frozen = config(tmp_path)
    frozen["roles"]["teacher"] |= {"checkpoint": str(out), "terms": {}, "model": network(4)}
    frozen["data"]["tokenizer"] = str(out)
    assert build(frozen).variants[0].initial_variables.keys() == {"teacher"}


def test_the_loss_is_averaged_over_all_real_tokens(tmp_path):
    """Devices hold different numbers of tokens."""
    settings = config(tmp_path, prompts=True)
    settings["data"]["packing"] = "pad"
    terms = settings["roles"]["student"]["terms"]
    terms["sinkhorn"] = {"toward": "teacher", "num_iters": 3, "average": True}
    one, four = (first_step({**settings, "devices": count}) for count in (1, 4))
    assert one.keys() == four.keys()
    for name, value in one.items():
        np.testing.assert_allclose(four[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    assert one["student/ce/raw"] == pytest.approx(np.log(281), rel=0.01)


def test_a_killed_sweep_ends_as_an_undisturbed_one(tmp_path):
    settings = config(tmp_path, prompts=True, sweep={"seed": [0, 1]}, log_every=1)
    settings["data"] |= {"rouge_prompts": 3, "max_length": 48}
    run = build(settings)
    whole = running.train(run, tmp_path / "whole", print)

    class Killed(BaseException):
        pass

    def batches(step, seed):
        for number, batch in enumerate(run.source.train(step, seed), start=step):
            if number == 3:
                raise Killed
            yield batch

    source = run.source._replace(train=batches)
    killed = run._replace(data=run.data._replace(source=source))
    with pytest.raises(Killed):
        running.train(killed, tmp_path / "run", print)
    lines: list[str] = []
    resumed = running.train(run, tmp_path / "run", lines.append)
    assert any("resumed from step 2" in line for line in lines)
    for one, other in zip(whole[0].members, resumed[0].members, strict=True):
        assert one.results == other.results
        assert 0 <= one.results["test"]["student/rouge_l"] <= 1
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "run")]
    assert logs[0] == logs[1]


def test_two_tokenizers(tmp_path):
    settings = config(tmp_path)
    settings["data"] |= {"packing": "pad", "second_bpe_size": 290}
    settings["roles"]["teacher"]["input"] = "second"
    uld = {"toward": "teacher", "skip_student_eos": False}
    own = {"ce": {}, "universal_logit_distance": uld, "multi_level_transport": uld}
    settings["roles"]["student"]["terms"] = own
    metrics = first_step(settings)
    assert 0 < metrics["student/universal_logit_distance/raw"] < 2
    assert np.isfinite(metrics["student/multi_level_transport/raw"])
    settings["roles"]["student"]["terms"] = {"forward_kl": {"toward": "teacher"}}
    with pytest.raises(UserError, match=r"forward_kl compares tokens .* use ULD \(universal_log"):
        build(settings)


def test_hidden_states_are_compared_at_real_tokens_only(tmp_path):
    """Devices hold different numbers of them; the padding token does not matter."""
    settings = config(tmp_path, prompts=True)
    settings["data"]["packing"] = "pad"
    settings["roles"]["student"]["model"] = network(8)
    terms = settings["roles"]["student"]["terms"]
    layers = {"own_layer": "hidden_1", "peer_layer": "hidden_1"}
    terms["feature_mse"] = {"toward": "teacher", **layers}
    one, four = (first_step({**settings, "devices": count}) for count in (1, 4))
    name = "student/feature_mse/raw"
    assert four[name] == pytest.approx(one[name], rel=1e-4)
    run = build(settings)
    batch = next(run.source.train(0, 0))
    variant = run.variants[0]
    _, state = make_program(run, MemberGroup(variant, (0,)), {})
    states = []
    for role in ("student", "teacher"):
        variables = jax.tree.map(lambda x: x[0], (state.params[role], state.stats[role]))
        model = variant.players[role].model
        states.append(
            model.apply(Variables(*variables), batch, train=False)[0].features["hidden_1"]
        )
    values = np.mean(np.square(np.subtract(*states)), axis=-1)
    real = batch["label"].reshape(-1) >= 0
    assert 0 < real.sum() < len(real)
    assert one[name] == pytest.approx(values[real].mean(), rel=1e-4)
    adapted = {"wide": {"layer": "hidden_1", "width": 8}}
    settings["roles"]["student"] |= {"model": network(4), "adapters": adapted}
    terms["feature_mse"]["own_layer"] = "wide"
    assert np.isfinite(first_step(settings)[name])
    terms["similarity_preserving"] = {"toward": "teacher", **layers}
    with pytest.raises(UserError, match="reads 'hidden_1', in which padding and prompts"):
        build(settings)


def test_evaluation_on_other_texts_keeps_both_tokenizers(tmp_path):
    settings = config(tmp_path, num_steps=2, eval_every=2)
    settings["data"] |= {"packing": "pad", "second_bpe_size": 290}
    settings["roles"]["teacher"]["input"] = "second"
    del settings["roles"]["student"]["terms"]["forward_kl"]
    path, folder = experiment(tmp_path, settings), tmp_path / "run"
    assert cli.main(train(path, folder)) == 0
    other = tiny_language.write(tmp_path / "other")
    other.write_text("".join(f'{{"text": "import {n} as x{n}; print(x{n})"}}\n' for n in range(40)))
    changed = {**settings, "data": {**settings["data"], "path": str(other)}}
    run = with_test_data(build(settings), changed, folder)
    dataset = run.data.dataset
    (batch, *_) = run.source.evals["test"]()
    for each, prefix in ((dataset, ""), (dataset.second, "second_")):
        ids = batch[f"{prefix}input_ids"][0][batch[f"{prefix}segment_ids"][0] > 0]
        assert each.tokenizer.encoder.decode(ids.tolist()).startswith("import")
    shutil.rmtree(folder / "second")
    with pytest.raises(UserError, match=r"second tokenizer of --config\.data is not that"):
        with_test_data(build(settings), changed, folder)


def test_a_short_network_writes_the_texts_of_the_report(tmp_path):
    settings = config(tmp_path, num_steps=2, eval_every=2)
    for role in settings["roles"].values():
        role["model"] = network(4, max_length=24)  # data.max_length
    (result,) = running.train(build(settings), tmp_path / "run", print)
    assert result.detections["texts"].keys() == {"teacher", "student"}


def test_transformers_find_the_end_of_a_text(tmp_path):
    settings = config(tmp_path, num_steps=2, eval_every=2)
    folder, out = tmp_path / "run", tmp_path / "out"
    assert cli.main(train(experiment(tmp_path, settings), folder)) == 0
    flags = [f"--workdir={folder}", "--role=student", f"--out={out}", "--format=huggingface"]
    assert cli.main(["export", *flags]) == 0
    names = ("config", "generation_config", "tokenizer_config")
    tables = {name: json.loads((out / f"{name}.json").read_text()) for name in names}
    end = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]["<|endoftext|>"]
    assert tables["config"]["eos_token_id"] == tables["config"]["bos_token_id"] == end
    assert tables["generation_config"]["eos_token_id"] == end
    assert tables["tokenizer_config"]["eos_token"] == "<|endoftext|>"
    frozen = config(tmp_path)
    frozen["roles"]["teacher"] |= {"checkpoint": str(out), "terms": {}}
    frozen["roles"]["teacher"]["model"] = {"name": "huggingface"}
    build(frozen)


BAD = {
    "vocabulary": (
        {"roles.student.model.vocab_size": 20},
        r"roles.student.model: vocab_size is 20, but the tokenizer has \d+ words",
    ),
    "network": ({"roles.student.model.name": "bert"}, "is no decoder of texts; there are"),
    "entry": ({"roles.student.input": "view"}, "input is 'view'; texts have only second"),
    "path": ({"data.path": None}, "data.path is not set; give a .jsonl, .txt, .parquet file"),
    "foreign key": ({"data.task": "glue/sst2"}, "data.task is set, but only text has it"),
    "augmentation": ({"data.augment": "flip"}, "text is not augmented"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_for_bad_input(tmp_path, name):
    changes, message = BAD[name]
    settings = config(tmp_path)
    for path, value in changes.items():
        *parents, last = path.split(".")
        table = settings
        for part in parents:
            table = table[part]
        table[last] = value
    with pytest.raises(UserError, match=message) as caught:
        build(settings)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_tokenizer_is_refused(tmp_path):
    settings = config(tmp_path)
    settings["roles"]["teacher"] |= {"checkpoint": str(tmp_path), "terms": {}}
    with pytest.raises(UserError, match=r"holds no tokenizer; set data.tokenizer"):
        build(settings)


def test_invalid_lines_end_with_status_two(tmp_path, capsys):
    settings = config(tmp_path)
    (tmp_path / "sums.jsonl").write_text('{"text": "a"}\n{\n')
    path = experiment(tmp_path, settings)
    assert cli.main(train(path, tmp_path / "run")) == 2
    err = capsys.readouterr().err
    assert "line 2 is not JSON" in err
    assert err.count("\n") == 1


@pytest.mark.long
def test_a_network_learns_sums(tmp_path):
    settings = config(tmp_path, prompts=True, num_steps=150, batch_size=16)
    settings["roles"] = {"student": {**settings["roles"]["teacher"], "model": network(32)}}
    path, folder = experiment(tmp_path, settings), tmp_path / "run"
    assert cli.main(train(path, folder)) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = (line for line in lines if line["split"] == "train" and line["step"] in (50, 150))
    assert last["student/loss"] < 0.5 * first["student/loss"]
