"""Checkpoints: exact, verified, and rejected for another program."""

import pathlib

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.train import checkpoint
from tests.distill.methods import tables

TRAINS = ("teacher", "student")


def scrambled(name="bdkd", seed=1):
    """Return a state without zero arrays, including the momentum."""
    rng = np.random.default_rng(seed)
    state = tables.start(name)
    noisy = jax.tree.map(
        lambda x: np.asarray(rng.normal(size=np.shape(x)), np.asarray(x).dtype),
        (state.params, state.stats, state.opt),
    )
    params, stats, opt = noisy
    return state._replace(
        step=np.int32(5), key=jax.random.key(11), params=params, stats=stats, opt=opt
    )


def at(state, step):
    return jax.device_put(state._replace(step=np.int32(step)))


@pytest.fixture
def manager(tmp_path):
    opened = checkpoint.open_manager(tmp_path / "checkpoints", keep=3)
    yield opened
    opened.close()


def write(manager, *states, trains=TRAINS):
    for state in states:
        checkpoint.save(manager, state, trains, {"offset": 7 * int(state.step)})
    manager.wait_until_finished()


def test_round_trip_is_exact(manager):
    state = at(scrambled(), 5)
    write(manager, state)
    template = at(tables.start("bdkd"), 0)
    restored, record = checkpoint.restore(manager, template, TRAINS, print)
    assert checkpoint.digest(restored) == checkpoint.digest(state)
    assert tables.same(restored._replace(key=0), state._replace(key=0))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert jax.dtypes.issubdtype(restored.key.dtype, jax.dtypes.prng_key)
    assert np.array_equal(jax.random.bits(restored.key), jax.random.bits(state.key))
    assert record["step"] == 5
    assert record["offset"] == 35


def test_no_checkpoint(manager):
    assert checkpoint.restore(manager, at(scrambled(), 0), TRAINS, print) is None


def test_frozen_roles_are_not_written_and_stay_unchanged(manager):
    state = at(scrambled("kd"), 5)
    write(manager, state, trains=("student",))
    other = at(scrambled("kd", seed=2), 0)
    restored, _ = checkpoint.restore(manager, other, ("student",), print)
    assert tables.same(restored.params["student"], state.params["student"])
    assert tables.same(restored.params["teacher"], other.params["teacher"])
    assert tables.same(restored.stats["teacher"], other.stats["teacher"])


def test_saving_a_step_again_changes_nothing(manager):
    first, second = at(scrambled(), 5), at(scrambled(seed=2), 5)
    write(manager, first, second)
    restored, _ = checkpoint.restore(manager, second, TRAINS, print)
    assert tables.same(restored.params, first.params)


def test_the_newest_checkpoints_are_kept(manager):
    state = scrambled()
    write(manager, *(at(state, step) for step in range(1, 6)))
    assert sorted(manager.all_steps()) == [3, 4, 5]


def test_digest_depends_on_every_bit_and_name():
    tree = {"a": np.ones(3, np.float32), "b": jax.random.key(0)}
    digest = checkpoint.digest(tree)
    flipped = tree["a"].copy()
    flipped.view(np.int32)[1] ^= 1
    others = [
        {**tree, "a": flipped},
        {**tree, "a": tree["a"].astype(np.float64)},
        {**tree, "a": tree["a"][None]},
        {**tree, "b": jax.random.key(1)},
        {"c": tree["a"], "b": tree["b"]},
    ]
    assert digest == checkpoint.digest(jax.tree.map(lambda x: x.copy(), tree))
    assert digest not in [checkpoint.digest(other) for other in others]


def truncate(folder):
    for path in folder.rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder):
    """Damage the middle of every file of arrays; orbax decides which ones it reads."""
    for path in folder.rglob("d/*"):
        content = bytearray(path.read_bytes())
        for place in range(len(content) // 3, len(content) // 3 + 64):
            content[place] ^= 0xFF
        path.write_bytes(bytes(content))


def lose(folder):
    for path in list(folder.rglob("*")):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip, lose])
def test_a_damaged_newest_checkpoint_falls_back(tmp_path, damage):
    folder, state, lines = tmp_path / "checkpoints", scrambled(), []
    manager = checkpoint.open_manager(folder, keep=3)
    write(manager, at(state, 2), at(state, 4))
    manager.close()
    damage(folder / "4")

    manager = checkpoint.open_manager(folder, keep=3)
    restored, record = checkpoint.restore(manager, at(state, 0), TRAINS, lines.append)
    assert int(restored.step) == record["step"] == 2
    assert tables.same(restored.params, state.params)
    assert len(lines) == 1
    assert "checkpoints/4 is damaged (" in lines[0]
    assert "kept as damaged-4, trying the one before" in lines[0]
    assert (folder / "damaged-4").is_dir()
    write(manager, at(state, 4))  # its step can be saved again
    assert sorted(manager.all_steps()) == [2, 4]
    manager.close()


def test_a_different_digest_is_damage(manager, tmp_path, monkeypatch):
    lines = []
    write(manager, at(scrambled(), 2))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "digest", lambda tree: "0" * 32)
        write(manager, at(scrambled(), 4))
    restored, _ = checkpoint.restore(manager, at(scrambled(), 0), TRAINS, lines.append)
    assert int(restored.step) == 2
    assert "differ from their digest" in lines[0]


class TestErrors:
    """A checkpoint of another program is not damaged: it is rejected and stays unchanged."""

    def refused(self, manager, state, trains):
        with pytest.raises(UserError) as error:
            checkpoint.restore(manager, state, trains, print)
        assert sorted(manager.all_steps()) == [5]
        return str(error.value)

    def test_other_roles(self, manager):
        write(manager, at(scrambled("kd"), 5), trains=("student",))
        text = self.refused(manager, at(scrambled("bdkd"), 0), TRAINS)
        assert "checkpoints/5" in text
        assert "teacher" in text

    def test_other_shapes(self, manager):
        state = at(scrambled(), 5)
        write(manager, state)
        wider = jax.tree.map(lambda x: np.stack([x, x]), state.params)
        text = self.refused(manager, state._replace(params=wider), TRAINS)
        assert "params" in text
        assert "(2, " in text


def test_file_hashes_detect_damage_and_are_removed_with_the_checkpoint(manager):
    """A changed file is detected without orbax, and its step can be saved and restored again."""
    folder = pathlib.Path(manager.directory)
    write(manager, at(scrambled(), 5), at(scrambled(), 6))
    checkpoint.write_file_hashes(manager)
    files = [path for path in (folder / "6").rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    lines = []
    restored, _ = checkpoint.restore(manager, at(scrambled(), 0), TRAINS, lines.append)
    assert int(restored.step) == 5
    assert "has changed since it was written" in lines[0]
    assert victim.name in lines[0]
    write(manager, at(scrambled(seed=3), 6))
    checkpoint.write_file_hashes(manager)
    restored, _ = checkpoint.restore(manager, at(scrambled(), 0), TRAINS, lines.append)
    assert int(restored.step) == 6
    assert len(lines) == 1
