"""The pins on Ray Tune's internals, and each promise of the adapters through real Ray."""

import inspect
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.air.execution._internal import RayActorManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.utils.object_cache import _ObjectCache

from tests.conftest import EXAMPLES, toy_experiment
from trainables import gpu_monitor
from trainables.distributed import NODE_LEAVES
from trainables.rank import Rank, TrialSpec
from tuner.errors import UserError
from tuner.run import Summary, resume_run, start_run
from tuner.search.search import Search
from tuner.search.settings import SearchSettings
from tuner.search.simulation import blank_search
from tuner.search.trial import Status
from tuner.search.tune_adapters import (
    AUTOFILLED,
    STOPPING,
    SlotResources,
    TrialWatcher,
    TuneBridge,
    WarmActors,
    _by_the_task,
    _metrics,
)

PLAIN = {"trainable": "plain_trainable:Curve", "search_space": {
    "hyperparameters": {
        "width": {"type": "float", "lower": 0.5, "upper": 5, "grid": 2},
        "height": {"type": "integer", "lower": 1, "upper": 5, "grid": 2},
    }
}}  # fmt: skip


@pytest.fixture
def run(ray_address: str) -> Callable[[Any], Summary]:
    return lambda experiment: start_run(experiment, address=ray_address, folder=EXAMPLES)


def test_ray_is_the_version_whose_inside_was_read() -> None:
    assert re.match(r"2\.60\.", ray.__version__)


def test_what_the_adapters_touch_is_there() -> None:
    source = inspect.getsource(TuneController)
    for name in ("_actor_cache", "_wrapped", "stop_trial", "flush_cached_objects("):
        assert name in source
    assert "trial.placement_group_factory" in source
    parameters = inspect.signature(_ObjectCache.flush_cached_objects).parameters
    assert list(parameters) == ["self", "force_all"]
    assert {"update_resources", "on_checkpoint", "pickled_error_file"} <= set(dir(TuneTrial))
    for name in ("_trial_to_actor", "_actor_manager", "_reuse_actors", "request_stop_experiment("):
        assert name in source
    assert {"is_actor_started", "remove_actor"} <= set(dir(RayActorManager))
    for name in ("_trials", "_live_trials", "_stopped_trials", "_failed_trials"):
        assert f"self.{name}: " in source
    for name in ("_trials_to_cache: Set", "_trial_metadata[trial.trial_id]"):
        assert f"self.{name}" in source


def test_resources_are_equal_on_the_same_slot_only() -> None:
    bundles = [{"CPU": 1.0}]
    assert SlotResources(bundles, 0) == SlotResources(bundles, 0)
    assert SlotResources(bundles, 0) != SlotResources(bundles, 1)
    assert len({SlotResources(bundles, 0), SlotResources(bundles, 0)}) == 1


class FakeTuneTrial:
    """What the bridge asks of a Tune trial: its id, its status, its resources, an actor."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.status = trial_id, TuneTrial.PENDING
        self.temporary_state = self
        self.ray_actor = self
        self.pickled_error_file = "nothing"
        self.last_result: dict[str, Any] = {}

    @property
    def _actor_id(self) -> bytes:
        return self.trial_id.encode()

    def update_resources(self, resources: SlotResources) -> None:
        self.resources = resources


class FakeCluster:
    """A bridge, and Tune in as few words as possible. ``slots``: what the cluster has room for."""

    def __init__(self, slots: int, num_trials: int = 8) -> None:
        self.slots, self.said = slots, list[str]()
        settings = SearchSettings.model_validate(
            {"algorithm": "random", "num_trials": num_trials, "max_epochs": 3, "metric": "loss"}
        )
        self.search = blank_search(settings, num_trials)
        self.bridge = TuneBridge(
            self.search,
            [{"CPU": 1.0}],
            lambda: self.slots,
            lambda _: {},
            say=self.said.append,
            warn=self.said.append,
            placement="spread",
        )
        self.trials: list[FakeTuneTrial] = []

    def fill(self, *, start: bool = True) -> list[FakeTuneTrial]:
        """The Tune trials that were added, and started on actors."""
        self.bridge.fill_slots()
        added: list[FakeTuneTrial] = []
        while self.bridge.start_next(f"id{len(self.trials)}"):
            added.append(FakeTuneTrial(f"id{len(self.trials)}"))
            self.trials.append(added[-1])
            self.bridge.added(added[-1])
            if start:
                self.start(added[-1])
        return added

    def start(self, trial: FakeTuneTrial) -> None:
        trial.status = TuneTrial.RUNNING
        self.bridge.started(trial)

    def lose(self, trial: FakeTuneTrial) -> None:
        """Its process is gone."""
        self.bridge.erred(trial)
        self.bridge.failed(trial.trial_id)
        trial.status = TuneTrial.ERROR


def test_slots_are_opened_for_nodes_that_join() -> None:
    cluster = FakeCluster(slots=1)
    (first,) = cluster.fill()
    assert first.resources.strategy == "SPREAD"
    cluster.slots = 3
    added = cluster.fill()
    assert [trial.resources.slot for trial in added] == [1, 2]
    assert cluster.bridge.slots == 3


def test_a_trial_leaves_a_slot_that_has_no_room_for_one_that_has() -> None:
    """Its node is lost, and it waits where nothing can be placed: the next free slot takes it."""
    cluster = FakeCluster(slots=2)
    first, second = cluster.fill()
    cluster.lose(first)
    (again,) = cluster.fill(start=False)  # Ray has not noticed yet, and looks for room
    cluster.slots = 1
    assert cluster.fill() == []
    assert cluster.bridge.withdrawn() == [again]
    assert cluster.bridge.withdrawn() == []
    cluster.bridge.left(again)  # Tune has stopped it, which says nothing of the trial
    assert cluster.search.trials[0].status is Status.RUNNING
    cluster.search.fail(1, {"type": "Any", "message": "it makes room"})
    cluster.bridge.left(second)
    second.status = TuneTrial.TERMINATED
    (taken,) = cluster.fill()
    assert cluster.bridge.trial_of(taken).number == 0
    assert (taken.resources.slot, cluster.search.trials[0].faults) == (1, 1)
    cluster.slots = 2
    (new,) = cluster.fill()
    assert new.resources.slot == 0
    assert cluster.bridge.slots == 2


def test_a_slot_with_a_process_comes_before_one_that_has_lost_it() -> None:
    cluster = FakeCluster(slots=2)
    first, second = cluster.fill()
    cluster.search.fail(1, {"type": "Any", "message": "it ends, and its process stays"})
    cluster.bridge.left(second)
    second.status = TuneTrial.TERMINATED
    cluster.lose(first)
    assert [trial.resources.slot for trial in cluster.fill()] == [1, 0]
    assert cluster.search.trials[0].slot == 1


def test_without_nodes_a_trial_waits_and_then_the_run_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits in Ray's queue, by which an autoscaler sees what is wanted."""
    cluster = FakeCluster(slots=2)
    for trial in cluster.fill():
        cluster.lose(trial)
    cluster.slots = 0
    (waiting,) = cluster.fill(start=False)
    assert cluster.said == ["no node can hold a trial now: waiting 20 min for one to join"]
    assert cluster.bridge.broken is None
    cluster.slots = 1
    cluster.fill()
    cluster.slots = 0
    cluster.fill()
    assert len(cluster.said) == 2, "the wait begins anew"
    monkeypatch.setattr("tuner.search.tune_adapters.PATIENCE_SECONDS", 0)
    cluster.fill()
    assert "no node that could hold a trial" in str(cluster.bridge.broken)
    assert cluster.bridge.withdrawn() == []
    assert waiting.status == TuneTrial.PENDING
    assert not cluster.search.finished


def test_a_cluster_that_keeps_losing_processes_ends_the_run() -> None:
    """After max_failures + 1 for each slot and one more; an epoch begins the count anew."""
    cluster = FakeCluster(slots=2)
    first, second = cluster.fill()
    cluster.lose(second)
    result = {"training_iteration": 1, cluster.search.metric: 1.0}
    cluster.bridge.reported(first, result, ended=False)
    cluster.fill()
    for _ in range(6):
        for trial in [t for t in cluster.trials if t.status == TuneTrial.RUNNING]:
            assert cluster.bridge.broken is None
            cluster.lose(trial)
        cluster.fill()
    assert "12 processes were lost in a row" in str(cluster.bridge.broken)


def test_a_trial_that_waits_goes_to_an_idle_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run's processes may have the resources of its slot, to that run's end."""
    cluster = FakeCluster(2, num_trials=2)
    running, waiting = cluster.fill(start=False)
    cluster.start(running)
    cluster.search.fail(0, {"type": "Any", "message": "it is over"})
    cluster.bridge.left(running)
    running.status = TuneTrial.TERMINATED
    assert cluster.fill() == []
    assert waiting.status == TuneTrial.PENDING
    monkeypatch.setattr("tuner.search.tune_adapters.WAIT_SECONDS", 0)
    assert cluster.fill() == []
    assert cluster.bridge.withdrawn() == [waiting]
    cluster.bridge.left(waiting)
    waiting.status = TuneTrial.TERMINATED
    (again,) = cluster.fill()
    assert cluster.bridge.trial_of(again) is cluster.bridge.trial_of(waiting)
    assert cluster.bridge._resources(cluster.bridge._slot_of(again)).slot == 0


def test_warm_actors_are_kept_until_all_must_go() -> None:
    cache = WarmActors(lambda slot: slot == 3)
    keys = [SlotResources([{"CPU": 1.0}], slot) for slot in range(4)]
    kept = [cache.cache_object(key, actor) for key, actor in zip(keys, "abcd", strict=True)]
    assert kept == [True, True, True, False]
    assert list(cache.flush_cached_objects()) == []
    assert cache.pop_cached_object(keys[1]) == "b"
    assert sorted(cache.flush_cached_objects(force_all=True)) == ["a", "c"]


def test_a_trial_leaves_a_node_that_is_to_go_once_its_epoch_is_saved() -> None:
    cluster = FakeCluster(1)
    (trial,) = cluster.fill()
    leaving = {"training_iteration": 1, cluster.search.metric: 1.0, NODE_LEAVES: True}
    assert cluster.bridge.reported(trial, leaving, ended=False) == TrialScheduler.STOP
    assert cluster.search.trials[0].attempts == 1
    cluster.bridge.reported(trial, leaving, ended=True)
    cluster.bridge.left(trial)  # its state is saved
    assert cluster.bridge.leaves(0), "its process is to end"
    assert not cluster.bridge.leaves(0), "the next one on the slot is not"
    trial.status = TuneTrial.TERMINATED
    (again,) = cluster.fill()
    assert cluster.bridge.trial_of(again) is cluster.search.trials[0]
    assert cluster.search.trials[0].status is Status.RUNNING
    assert cluster.search.trials[0].faults == 0
    assert cluster.search.trials[0].epoch == 1


def test_a_plain_trainable_runs_as_it_is(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    """Without reset_config: a trial that is begun or promoted has a process of its own."""
    summary = run(experiment(**PLAIN, search__algorithm="bohb", search__num_trials=4))
    search = summary.search
    assert len(search.trials) == 4
    assert max(trial.epoch for trial in search.trials) == 3
    assert search.reached == search.sampler.told
    assert all(set(t.results[1]) == {"loss", "seconds"} for t in search.trials)
    assert (summary.best / "checkpoint" / "state.json").exists()


def test_a_trainable_that_is_done_by_itself_completes(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    settings = {**PLAIN, "trainable": "plain_trainable:Finite"}
    search = run(experiment(**settings, search__algorithm="asha", search__num_trials=2)).search
    assert {t.status for t in search.trials} <= {Status.COMPLETED, Status.STOPPED}
    assert max(t.epoch for t in search.trials) == 2
    assert any(t.status is Status.COMPLETED for t in search.trials)


def test_a_trainable_that_raises_fails_alone_and_is_not_tried_again(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    settings = {**PLAIN, "trainable": "plain_trainable:Broken"}
    search = run(experiment(**settings, search__num_trials=2)).search
    assert [t.status for t in search.trials] == [Status.FAILED, Status.FAILED]
    assert [t.attempts for t in search.trials] == [1, 1]
    assert search.trials[0].error["type"] == "ValueError"
    assert "fails on purpose" in search.trials[0].error["message"]


def test_a_trainable_that_cannot_save_is_refused_where_trials_pause(
    experiment: Callable[..., Any],
) -> None:
    settings = {**PLAIN, "trainable": "plain_trainable:Unsaved"}
    with pytest.raises(UserError, match="defines no save_checkpoint"):
        start_run(experiment(**settings, search__algorithm="asha"), folder=EXAMPLES)


@pytest.mark.parametrize(
    ("metric", "hint"),
    [("accuracy", "choose one of loss, train_loss"), ("tran_loss", "did you mean 'train_loss'?")],
)
def test_a_metric_that_is_not_reported_is_named_with_those_that_are(
    metric: str, hint: str, run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    with pytest.raises(UserError) as caught:
        run(experiment(search__metric=metric))
    assert str(caught.value) == (
        f"search.metric is {metric!r}, which the trainable does not report; {hint}"
    )
    assert "pid" in AUTOFILLED  # Tune's, which is why the toy's own is not named


def test_what_a_rank_adds_to_a_tasks_own_metrics_is_told_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import toy_task

    def evaluate(self: toy_task.Toy) -> dict[str, float]:
        self.context.micro_batch(8)
        return {"loss": 0.0}

    monkeypatch.setattr(toy_task.Toy, "evaluate", evaluate)
    monkeypatch.setattr(toy_task.Toy, "logs", ("weights",), raising=False)
    monkeypatch.setattr(gpu_monitor, "summarize", lambda _: {"use_percent_mean": 50.0})
    rank = Rank(0, 1, gpus=0, threads=1)
    rank.build(TrialSpec("toy_task:Toy", {}, 0, 1, str(tmp_path), log_dir=str(tmp_path)), None, 0)
    metrics = _metrics({**rank.run_epoch(0), "time_this_iter_s": 1.0})
    rank.close()
    added = set(metrics) - {"loss", "train_loss"}
    assert {name.partition("/")[0] for name in added} == {
        "gpu", "logging", "memory_growth_mb", "memory_mb", "micro_batch", "oom_recoveries",
        "seconds", "tensor_growth",
    }  # fmt: skip
    assert set(filter(_by_the_task, metrics)) == {"loss", "train_loss"}


def events(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "journal.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["grid", "random", "asha", "bohb"])
def searched(
    request: pytest.FixtureRequest, ray_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Summary:
    """A search on two slots, to its end."""
    experiment = toy_experiment(
        tmp_path_factory.mktemp(request.param),
        search__algorithm=request.param,
        search__num_trials=6,
        search__max_epochs=9,
        resources__max_concurrent_trials=2,
    )
    return start_run(experiment, address=ray_address, folder=EXAMPLES)


def test_slots_stay_warm_and_nothing_is_counted_twice(searched: Summary) -> None:
    assert searched.actors == searched.slots == 2
    results = Counter(
        (e["trial"], e["epoch"]) for e in events(searched.folder) if e["event"] == "result"
    )
    assert set(results.values()) == {1}
    for trial in searched.search.trials:
        assert sorted(trial.results) == list(range(1, trial.epoch + 1))


def test_only_the_latest_and_best_checkpoints_are_on_disk(searched: Summary) -> None:
    trials = searched.search.trials
    kept = {path for trial in trials for path in trial.checkpoints.values()}
    assert {str(path) for path in searched.folder.glob("trial_*/checkpoint_*")} == kept
    assert all(len(trial.checkpoints) == 1 for trial in trials)


def test_a_finished_run_resumes_to_the_same_end_at_once(searched: Summary) -> None:
    again = resume_run(searched.folder, address="127.0.0.1:1")  # no need of a cluster
    assert [vars(t) for t in again.search.trials] == [vars(t) for t in searched.search.trials]
    assert isinstance(again.search, Search)


@pytest.mark.parametrize(
    ("algorithm", "settings", "slots"),
    [
        ("asha", {"max_epochs": 1, "reduction_factor": 3, "num_trials": 2}, 1),
        ("asha", {"max_epochs": 10, "reduction_factor": 3, "num_trials": 7}, 3),
        ("bohb", {"max_epochs": 10, "reduction_factor": 3, "num_trials": 9}, 3),
    ],
)
def test_a_part_of_the_sweep_through_ray(
    algorithm: str,
    settings: dict[str, int],
    slots: int,
    run: Callable[[Any], Summary],
    experiment: Callable[..., Any],
) -> None:
    """Some trials raise, some report NaN; the sweep itself is in test_sweep.py."""
    summary = run(
        experiment(
            **{**PLAIN, "trainable": "plain_trainable:Fragile"},
            **{f"search__{key}": value for key, value in settings.items()},
            search__algorithm=algorithm,
            resources__max_concurrent_trials=slots,
        )
    )
    search = summary.search
    assert len(search.trials) == settings["num_trials"]
    assert search.reached == search.sampler.told
    assert not [trial for trial in search.trials if trial.resumable]
    for trial in search.trials:
        if trial.config["height"] == 5:
            assert (trial.status, trial.epoch) == (Status.FAILED, 0)
        elif trial.config["height"] < 4:
            assert trial.status is not Status.FAILED
        assert list(trial.results) == list(range(1, trial.epoch + 1))
    failed = sum(trial.status is Status.FAILED for trial in search.trials)
    assert summary.actors <= slots + failed  # Tune ends the process of a trial that raises


def test_a_target_and_a_time_budget_end_the_search_early(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    met = run(experiment(stop__target=1000.0, search__num_trials=30)).search
    assert "loss has reached" in met.halted
    assert len(met.trials) < 30
    late = run(
        experiment(
            name="late", stop__time_budget=0.2, settings={"sleep": 0.3}, search__num_trials=9
        )
    ).search
    assert late.halted == "time budget of 0 s used up"
    assert len(late.trials) < 9


def test_ctrl_c_is_answered_and_noted_and_left_to_tune() -> None:
    """Tune's handler ends the search; once, for it then restores the one that was there before."""
    cluster, by_tune, before = FakeCluster(1), list[int](), signal.getsignal(signal.SIGINT)

    def of_tune(number: int, _: object) -> None:
        by_tune.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, of_tune)
    try:
        with ThreadPoolExecutor(1) as other:  # in which Python lets nobody set a handler
            other.submit(TrialWatcher(cluster.bridge).setup).result()
        assert signal.getsignal(signal.SIGINT) is of_tune
        TrialWatcher(cluster.bridge).setup()
        assert not cluster.bridge.stopped
        signal.raise_signal(signal.SIGINT)
        assert (by_tune, cluster.bridge.stopped) == ([signal.SIGINT], True)
        for _ in range(100):
            if cluster.said:
                break
            time.sleep(0.05)
        assert cluster.said == [STOPPING]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
