"""Contract of every public name of kdjax.bounds: one row for each name, without exceptions.

A row (rows.py) has a valid call, and invalid calls with the words of their error. `closed` rows
compute in numpy float64 for numbers and in JAX for JAX arrays, with the same result.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import bounds
from tests.bounds.rows import RECORDS, ROWS


def call(name, *args, **options) -> Any:
    function: Callable[..., Any] = getattr(bounds, name)
    return function(*args, **options)


def test_every_public_name_has_a_row():
    assert set(ROWS) | RECORDS == set(bounds.__all__)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_docstrings_name_the_value(name):
    doc = inspect.getdoc(getattr(bounds, name)) or ""
    assert ">>>" in doc
    assert "Raises:" in doc or "errors as in" in doc
    assert any(words in doc for words in ROWS[name].words.split("|")), ROWS[name].words


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_records_explain_their_fields(name):
    record = getattr(bounds, name)
    assert all(
        f"`{field}`" in record.__doc__ or len(record._fields) <= 3 for field in record._fields
    )


@pytest.mark.parametrize("name", sorted(ROWS))
@pytest.mark.usefixtures("without_jaxtyping")
def test_bad_calls_raise_one_line(name):
    for args, options, words in ROWS[name].refused:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call(name, *args, **options)
        assert words in str(caught.value), (args, str(caught.value))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(n for n, row in ROWS.items() if row.closed))
def test_numbers_give_float64_and_jax_arrays_give_jax_arrays(name):
    row = ROWS[name]
    host = call(name, *row.args, **row.options)
    assert not isinstance(host, jax.Array)
    assert np.asarray(host).dtype == (np.int64 if name == "funnel_layer" else np.float64)
    lifted = [jnp.asarray(a, jnp.float32) for a in row.args]
    traced = jax.jit(lambda *a: call(name, *a, **row.options))(*lifted)
    assert isinstance(traced, jax.Array)
    # float32 of numbers of order 1, through at most a few hundred operations
    np.testing.assert_allclose(traced, host, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(n for n, row in ROWS.items() if not row.closed))
def test_host_calls_work(name):
    row = ROWS[name]
    leaves = jax.tree.leaves(call(name, *row.args, **row.options))
    numbers = [np.asarray(x) for x in leaves if not isinstance(x, str)]
    assert numbers
    assert all(np.isfinite(x).all() for x in numbers)
