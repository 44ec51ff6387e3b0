"""How many trials fit onto which nodes, as those come and go."""

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.tune.execution.class_cache import _ActorClassCache
from ray.util import placement_group_table

from tuner.cluster import Capacity, _leave, are_most_workers_ranks, cluster, fitting_slots, joined
from tuner.errors import UserError
from tuner.search.tune_adapters import in_idle_workers


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


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "127.0.0.1:1"])
@pytest.mark.parametrize("key", ["--address", "RAY_ADDRESS"])
def test_an_address_where_no_cluster_answers_is_refused_at_once(
    key: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(
            UserError, match=f"^{key} is '{address}': no Ray cluster can be joined there "
        ),
        cluster(address if key == "--address" else None),
    ):
        pass


def test_local_is_no_address_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert joined(None) == "127.0.0.1:6379"
    assert joined("local") is None


class Looker:
    """An actor that tells where it is."""

    def look(self) -> tuple[int, bool]:
        return os.getpid(), "trainables.hidden" in sys.modules


def test_trials_start_in_workers_that_are_up_and_have_imported_what_they_need() -> None:
    with cluster(None, Path(__file__).parent, preload=["trainables.hidden"]):
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        group = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
        time.sleep(3)  # Ray itself would now end the workers, as all CPUs are taken
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
        with in_idle_workers():
            actor = _ActorClassCache().get(Looker).options(scheduling_strategy=strategy).remote()
        pid, imported = ray.get(actor.look.remote(), timeout=60)
        assert pid in before
        assert imported


@pytest.mark.parametrize(
    ("cpus", "ranks", "limit", "most"),
    [(2, 2, 1, True), (2, 1, None, True), (4, 2, 1, True), (8, 2, 1, False), (8, 2, 2, True)],
)
def test_workers_import_ahead_where_most_become_ranks(
    cpus: int, ranks: int, limit: int | None, most: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert are_most_workers_ranks(bundles(ranks, CPU=1), limit) is most
    assert not are_most_workers_ranks(bundles(ranks, CPU=1, GPU=1), limit)


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
