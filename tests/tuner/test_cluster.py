"""How many trials fit onto which nodes, as those come and go."""

import errno
from typing import Any

import pytest
from ray.util import placement_group_table

from tuner.cluster import Capacity, _leave, cluster, fitting_slots
from tuner.errors import UserError


def bundles(ranks: int = 1, **amounts: float) -> list[dict[str, float]]:
    return [dict(amounts) for _ in range(ranks)]


@pytest.mark.parametrize(
    ("wanted", "nodes", "slots"),
    [
        (bundles(CPU=1), [{"CPU": 4.0}], 4),
        (bundles(CPU=3), [{"CPU": 4.0}, {"CPU": 4.0}], 2),  # a rank lies on one node
        (bundles(2, CPU=3), [{"CPU": 4.0}, {"CPU": 4.0}], 1),  # a trial's two need not
        (bundles(CPU=0.3), [{"CPU": 10.0}], 33),
        (bundles(CPU=0.1, GPU=0.4), [{"CPU": 8.0, "GPU": 3.0}], 6),  # a part is of one GPU
        (bundles(4, CPU=1, GPU=1), [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 3.0}], 1),
        (bundles(CPU=1, GPU=1), [{"CPU": 1.0, "GPU": 4.0}], 1),
    ],
)
def test_slots_are_what_ray_can_place(
    wanted: list[dict[str, float]], nodes: list[dict[str, float]], slots: int
) -> None:
    assert fitting_slots(wanted, nodes) == slots
    assert fitting_slots(wanted, nodes, limit=1) == 1


def test_what_fits_onto_no_node_is_refused_though_together_they_have_enough() -> None:
    with pytest.raises(UserError) as caught:
        fitting_slots(bundles(CPU=3), [{"CPU": 2.0}, {"CPU": 2.0}])
    assert str(caught.value) == (
        "resources: a trial needs 3 CPUs (1 ranks), but the cluster has 4 CPUs, on 2 nodes, and a "
        "rank must fit onto one; lower resources.gpus_per_trial, workers_per_trial or "
        "cpus_per_worker"
    )


def test_nodes_that_come_and_go_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[dict[str, Any]] = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr("tuner.cluster._alive", lambda: [n for n in nodes if n["Alive"]])
    monkeypatch.setattr("tuner.cluster.POLL_SECONDS", 0)
    capacity = Capacity(bundles(2, CPU=1), None)
    assert capacity.require() == 1
    nodes.append({"Alive": True, "Resources": {"CPU": 5.0}})
    assert capacity.count() == 3
    nodes[1]["Alive"] = nodes[0]["Alive"] = False
    assert capacity.count() == 0
    with pytest.raises(UserError, match="the cluster has 0 CPUs"):
        capacity.require()


def test_trials_wait_in_the_queue_of_a_cluster_that_may_grow(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which its autoscaler sees how many are wanted."""
    monkeypatch.setattr("tuner.cluster.POLL_SECONDS", 0)
    large = bundles(2, CPU=1000)

    def waiting() -> int:
        groups = [g for g in placement_group_table().values() if g["state"] == "PENDING"]
        assert all(list(g["bundles"].values()) == large for g in groups)
        return len(groups)

    with cluster(ray_address):
        for refused in (Capacity(large, 3), Capacity(large, None, joined=True)):
            with pytest.raises(UserError, match=r"a trial needs 2000 CPUs .* the cluster has 8"):
                refused.require()
        capacity = Capacity(large, 3, joined=True)
        assert capacity.require() == 1
        assert capacity.count() == 0
        assert waiting() == 3
        node = {"Alive": True, "Resources": {"CPU": 2000.0}}
        monkeypatch.setattr("tuner.cluster._alive", lambda: [node, node])
        assert capacity.count() == 2
        assert waiting() == 1


def test_a_cluster_is_left_though_the_workers_last_words_find_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def shutdown() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ray.shutdown", shutdown)
    _leave()
    assert len(calls) == 2
