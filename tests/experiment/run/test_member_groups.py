"""The division of a sweep's members into programs that fit the memory of one or several devices."""

import pytest

from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import checkpoint_dir, member_groups
from kdjax.train import memory_estimate

CONFIG = {
    "num_steps": 2,
    "batch_size": 16,
    "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3},
    "roles": {"student": {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}}},
    "sweep": {"seed": tuple(range(16))},
}


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"devices": 1}, [2] * 8),
        ({"devices": 1, "members_in_turn": True}, [16]),  # the step of one at a time
        ({"devices": 4}, [8, 8]),  # two members on each device
        ({"devices": 4, "members_over_devices": False}, [2] * 8),
        ({"devices": 4, "members_per_program": 5}, [5, 5, 5, 1]),
    ],
)
def test_members_fit_the_devices_over_which_they_are_spread(changes, sizes, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "member_bytes", lambda *_: 1_000_000)
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda _: 2_600_000)
    run = build({**CONFIG, **changes})
    groups = member_groups(run, run.variants[0], tmp_path)
    assert [len(group.members) for group in groups] == sizes


def test_another_number_of_members_counts_until_there_is_a_checkpoint(tmp_path):
    def sizes(count):
        run = build({**CONFIG, "devices": 1, "members_per_program": count})
        groups = member_groups(run, run.variants[0], tmp_path)
        return [len(group.members) for group in groups], groups

    assert sizes(8)[0] == [8, 8]
    divided, groups = sizes(4)
    assert divided == [4] * 4
    (checkpoint_dir(groups[0]) / "2").mkdir(parents=True)
    assert sizes(2)[0] == [4] * 4


def test_the_initial_states_of_all_members_fit_one_device(tmp_path, monkeypatch):
    """They are drawn on one device before they are spread."""
    monkeypatch.setattr(memory_estimate, "member_bytes", lambda *_: 1)
    monkeypatch.setattr(memory_estimate, "tree_bytes", lambda _: 100)
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda _: 1_100)
    run = build({**CONFIG, "devices": 4})
    groups = member_groups(run, run.variants[0], tmp_path)
    assert [len(group.members) for group in groups] == [8, 8]
