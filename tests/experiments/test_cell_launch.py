"""The cores that the process of a cell may use."""

import os

import pytest

from memoroids.experiments.cell_launch import cores_of


def test_every_run_gets_as_many_cores_and_none_of_its_own_where_they_are_fewer_than_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 4, 6, 7}, raising=False)
    assert [cores_of(slot, 2) for slot in (0, 1)] == [[1, 3], [4, 6]]
    assert cores_of(0, 1) == [1, 3, 4, 6, 7]
    assert cores_of(3, 6) == []
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores_of(0, 2) == []
