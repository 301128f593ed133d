"""Classifiers by ranking: logits are log-probabilities of the answers for any padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.text.gpt_neo import GptNeoOptions, gpt_neo
from kdjax.models.text.t5 import T5Options, t5
from kdjax.types import Variables

T5 = {"vocab_size": 20, "num_layers": 1, "width": 8, "num_heads": 2, "dropout": 0.0}
NEO = {**T5, "num_layers": 2, "max_length": 16, "window": 3}
PROMPTS = ([3, 4, 5, 6, 7], [8, 9])
CHOICES = (([5, 6], [7]), ([1], [2, 3, 4]))
LABELS = np.array([0, 1], np.int32)


def padded(rows, length):
    ids, mask = np.zeros((2, len(rows), length), np.int32)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return ids, mask


def batch_of(length=6, count=3):
    ids, mask = padded(PROMPTS, length)
    flat = [choice for pair in CHOICES for choice in pair]
    choices, real = (x.reshape(2, 2, count) for x in padded(flat, count))
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "choice_ids": choices,
        "choice_mask": real,
        "label": LABELS,
    }


def built(name):
    sizes = T5 if name == "t5" else NEO
    model = models.build(name, num_classes=2, **sizes)
    variables = jax.jit(model.init)(jax.random.key(0), batch_of())
    params = jax.tree.map(lambda x: x * (1 if name == "t5" else 10), variables.params)
    return model, Variables(params, {})


def token_logits(name, variables, prompt, choice):
    """Return the language model's logits of one text without padding: [tokens, vocabulary]."""
    if name == "t5":
        plain = t5(T5Options(**T5))
        inputs = {"input_ids": prompt, "decoder_input_ids": [0, *choice[:-1]]}
    else:
        plain, inputs = gpt_neo(GptNeoOptions(**NEO)), {"input_ids": [*prompt, *choice]}
    batch = {key: np.array([row], np.int32) for key, row in inputs.items()}
    batch["attention_mask"] = np.ones_like(batch["input_ids"])
    run = jax.jit(lambda v, b: plain.apply(v, b, train=False)[0].logits[0])
    actual = np.float64(run(variables, batch))
    return actual if name == "t5" else actual[len(prompt) - 1 : -1]


@pytest.mark.parametrize("name", ["t5", "gpt_neo"])
def test_logits_are_sums_of_log_probabilities(name):
    model, variables = built(name)
    outputs = jax.jit(lambda b: model.apply(variables, b, train=False)[0])(batch_of())
    for row, (prompt, pair) in enumerate(zip(PROMPTS, CHOICES, strict=True)):
        for k, choice in enumerate(pair):
            logits = token_logits(name, variables, prompt, choice)
            logs = logits - scipy.special.logsumexp(logits, -1, keepdims=True)
            expected = sum(logs[d, token] for d, token in enumerate(choice))
            np.testing.assert_allclose(outputs.logits[row, k], expected, rtol=1e-5)
            if k == LABELS[row]:
                actual = outputs.features["token_logits"][row, : len(choice)]
                np.testing.assert_allclose(actual, logits, atol=2e-5)
    gold, mask = padded([pair[k] for pair, k in zip(CHOICES, LABELS, strict=True)], 3)
    np.testing.assert_array_equal(outputs.features["token_targets"], gold)
    np.testing.assert_array_equal(outputs.features["token_mask"], mask)


@pytest.mark.parametrize("name", ["t5", "gpt_neo"])
def test_features_have_the_models_names_and_do_not_depend_on_the_label(name):
    model, variables = built(name)
    batch = batch_of()
    run = jax.jit(lambda b: model.apply(variables, b, train=False)[0])
    first, other = run(batch), run({**batch, "label": 1 - LABELS})
    np.testing.assert_array_equal(first.logits, other.logits)
    np.testing.assert_array_equal(first.features["pooled"], other.features["pooled"])
    shapes = {key: x.shape for key, x in first.features.items()}
    tokens = {"token_logits": (2, 3, 20), "token_mask": (2, 3), "token_targets": (2, 3)}
    own = (
        {f"encoder_hidden_{i}": (2, 6, 8) for i in range(2)}
        | {f"decoder_hidden_{i}": (2, 3, 8) for i in range(2)}
        if name == "t5"
        else {
            **{f"hidden_{i}": (2, 9, 8) for i in range(3)},
            "token_states": (2, 3, 8),
            "token_table": (20, 8),
        }
    )
    assert shapes == {"pooled": (2, 8), **tokens, **own}
    unlabelled = {key: x for key, x in batch.items() if key != "label"}
    np.testing.assert_array_equal(
        run(unlabelled).features["token_targets"], batch["choice_ids"][:, 0]
    )


@pytest.mark.parametrize("name", ["t5", "gpt_neo"])
def test_gradient_of_the_gold_tokens_reaches_every_parameter(name):
    model, variables = built(name)

    def loss(params):
        outputs = model.apply(Variables(params, {}), batch_of(), train=True)[0]
        return outputs.logits[jnp.arange(2), LABELS].sum()

    for path, leaf in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables.params)):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_a_choice_without_tokens_is_ranked_last():
    model, variables = built("t5")
    batch = batch_of()
    batch["choice_mask"] = batch["choice_mask"] * np.array([1, 0], np.int32)[:, None]
    logits = jax.jit(lambda b: model.apply(variables, b, train=False)[0].logits)(batch)
    np.testing.assert_array_equal(logits[:, 1], -1e9)
    assert (logits[:, 0] > -1e3).all()


def test_invalid_batches_are_errors():
    model, variables = built("gpt_neo")
    batch = batch_of()
    with pytest.raises(UserError, match="built for 2 choices, but the batch has 1"):
        model.apply(variables, {**batch, "choice_ids": batch["choice_ids"][:, :1]}, train=False)
    with pytest.raises(UserError, match=r'rank classifier reads batch\["choice_mask"\]'):
        model.init(jax.random.key(0), {k: v for k, v in batch.items() if k != "choice_mask"})
    with pytest.raises(UserError, match="has 17 tokens, but the network has 16 positions"):
        model.apply(variables, batch_of(length=14), train=False)
