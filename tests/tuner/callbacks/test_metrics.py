"""What Ray's dashboard, Prometheus and Grafana are told: in arithmetic, and of a run held still."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.util import metrics as ray_metrics
from ray.util.state import list_actors, list_tasks

from search_spaces import load_space
from tests.conftest import EXAMPLES, CommandLine
from tuner.callbacks import metrics
from tuner.callbacks.metrics import RayMetrics, counts, counts_in, gauges
from tuner.search import SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.search import Event, Search
from tuner.search.simulation import simulate

DOCKER = Path(__file__).parents[3] / "docker"
SPACE = {"hyperparameters": {"lr": {"type": "float", "lower": 0.1, "upper": 1.0}}}


@pytest.fixture
def search() -> Search:
    """An ASHA search in which every fourth configuration fails."""
    settings = SearchSettings(
        algorithm="asha", metric="loss", mode="min", num_trials=8, max_epochs=9
    )
    return build_search(settings, load_space(SPACE), MemoryJournal())


def run(search: Search) -> None:
    def evaluate(config: dict[str, Any], epoch: int) -> float:
        if config["lr"] > 0.8:
            raise ValueError("too large")
        return config["lr"] / epoch

    simulate(search, evaluate, slots=2)


def test_what_events_add_is_what_the_search_has_come_to(search: Search) -> None:
    """So a run that is resumed goes on counting where it was."""
    added = counts(search)
    search.subscribe(lambda event, _: added.update(counts_in(event)))
    search.open_session(slots=2)
    run(search)
    assert +added == +counts(search)
    assert added["tuner_epochs", ()] == search.epochs_done
    assert added["tuner_failures", ("trial",)] > 0


def test_once_a_run_is_over_nothing_is_busy(search: Search) -> None:
    search.open_session(slots=2)
    search.next_job(0)
    search.report(0, 1, {"loss": 1.0, "gpu/rank0/use_percent_mean": 70.0})
    ends = [10.0, 12.0, 14.0]
    now = gauges(search, 2, ends)
    assert now["tuner_trials", ("running",)] == now["tuner_slots_busy", ()] == 1
    assert now["tuner_epochs_per_second", ()] == 0.5
    assert now["tuner_gpu_use_percent", ("0", "0")] == 70
    over = gauges(search, 2, [], ended=True)
    assert over["tuner_trials", ("running",)] == over["tuner_slots_busy", ()] == 0
    assert over["tuner_epochs_per_second", ()] == 0
    assert over["tuner_best", ("loss",)] == 1
    assert not [name for name, _ in over if "gpu" in name]


def test_gauges_are_worked_out_by_the_thread_and_not_for_each_event(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take milliseconds where there are thousands of trials."""
    threads: list[str] = []

    def note(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return gauges(*arguments, **options)

    monkeypatch.setattr(metrics, "gauges", note)
    monkeypatch.setattr(metrics, "REPEAT_SECONDS", 0.01)
    search.open_session(slots=2)
    with RayMetrics("toy", search, 2) as observer:
        search.subscribe(observer)
        run(search)
        wait_for(lambda: len(threads) > 2, 10)
    assert set(threads[:-1]) == {"ray-metrics"}
    assert threads[-1] == "MainThread", "the last of them, when the run is over"


def test_what_ends_the_thread_is_raised_in_the_run(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr(ray_metrics.Gauge, "set", refuse)
    monkeypatch.setattr(metrics, "REPEAT_SECONDS", 0.01)
    search.open_session(slots=2)
    observer = RayMetrics("toy", search, 2)
    observer.__enter__()
    observer._thread.join(10)
    with pytest.raises(RuntimeError, match="no metrics today"):
        observer({"event": "session"}, search)
    with pytest.raises(RuntimeError, match="no metrics today"):
        observer.__exit__(None, None, None)


# -- a run that is held still -------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A run whose third trial waits in its second epoch, on a cluster of its own."""

    temp: Path
    dashboard: str
    events: list[Event]

    @property
    def values(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Series -> values of its tags besides the run, in their names' order -> what it must be.

        From the journal, so by another way than the metrics.
        """
        results = [event for event in self.events if event["event"] == "result"]
        speed = (len(results) - 1) / (results[-1]["time"] - results[0]["time"])
        gpus = {
            "ray_tuner_gpu_use_percent": 80,
            "ray_tuner_gpu_memory_gb": 10.5,
            "ray_tuner_gpu_power_w": 200,
            "ray_tuner_gpu_temperature_c": 60,
        }
        states = {"running": 1, "completed": 1, "failed": 1, "paused": 0, "stopped": 0}
        exact = {
            "ray_tuner_trials": {(state,): count for state, count in states.items()},
            "ray_tuner_best": {("loss",): min(e["metrics"]["loss"] for e in results)},
            "ray_tuner_epochs_total": {(): len(results)},
            "ray_tuner_epochs_planned": {(): 6},
            "ray_tuner_epochs_per_second": {(): speed},
            "ray_tuner_slots": {(): 1},
            "ray_tuner_slots_busy": {(): 1},
            "ray_tuner_oom_recoveries_total": {(): 4},
            "ray_tuner_failures_total": {("trial",): 1},
        } | {name: {("0", "0"): v, ("1", "0"): v + 1} for name, v in gpus.items()}
        return {name: pytest.approx(of_name, rel=1e-6) for name, of_name in exact.items()}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("held")
    temp = Path("/tmp") / f"tuner-held-{os.getpid()}"  # noqa: S108 - sockets have short paths
    cases = {"type": "ordinal", "sequence": ["recovers", "fails", "waits"]}
    experiment = {
        "name": "held",
        "trainable": "held_task:Held",
        "settings": {"go": str(folder / "go")},
        "search_space": {"hyperparameters": {"case": cases}},
        "search": {"algorithm": "grid", "metric": "loss", "mode": "min", "max_epochs": 2},
        "resources": {"workers_per_trial": 2, "max_concurrent_trials": 1},
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }
    (folder / "held.yaml").write_text(yaml.safe_dump(experiment))
    env = {
        "PYTHONPATH": str(EXAMPLES),
        "RAY_ADDRESS": "",
        "RAY_TMPDIR": str(temp),
        "RAY_metrics_report_interval_ms": "1000",
    }
    process = CommandLine(folder, env).start("run", "held.yaml")
    try:
        yield Held(temp, read_dashboard(process), wait_for_results(folder / "runs" / "held", 3))
        (folder / "go").touch()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        shutil.rmtree(temp, ignore_errors=True)


def read_dashboard(process: subprocess.Popen[str]) -> str:
    """The address that the run prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[\w.]+:\d+", line):
            return found.group()
    raise AssertionError(process.communicate()[1])


def wait_for_results(run: Path, number: int) -> list[Event]:
    """The journal, once it holds so many results."""

    def read() -> list[Event] | None:
        events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        return events if sum(e["event"] == "result" for e in events) == number else None

    return wait_for(read, 120)


def wait_for(read: Callable[[], Any], seconds: float) -> Any:
    """What ``read`` returns once it returns something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := read():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"nothing in {seconds} s")


def becomes(read: Callable[[], Any], expected: Any) -> None:
    """Check that ``read`` returns what is ``expected`` before long."""
    with suppress(TimeoutError):
        wait_for(lambda: read() == expected, 60)
    assert read() == expected


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - this machine's own
        return answer.read().decode()


def scraped(temp: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Our series, as :attr:`Held.values` has them, from the ports of Ray's nodes."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    (group,) = json.loads((temp / "prom_metrics_service_discovery.json").read_text())
    for target in group["targets"]:
        try:
            lines = fetch(f"http://{target}/metrics").splitlines()
        except OSError:  # the autoscaler's and the dashboard's, where there are none
            continue
        for line in lines:
            if match := re.match(r"(ray_tuner_\w+)\{(.*)\} (\S+)$", line):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
                assert labels["run"] == "held"
                found.setdefault(match[1], {})[ours(labels)] = float(match[3])
    return found


def ours(labels: dict[str, str]) -> tuple[str, ...]:
    """The values of our own labels but the run, in the order of their names."""
    names = ("kind", "metric", "rank", "slot", "state")
    return tuple(labels[name] for name in names if name in labels)


def test_the_metrics_port_tells_what_the_journal_tells(held: Held) -> None:
    becomes(lambda: scraped(held.temp), held.values)


def test_every_query_of_the_dashboard_is_answered_by_prometheus(held: Held, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus")
    with prometheus(held.temp, tmp_path) as query:
        names = set()
        for expression in queries():
            name = re.findall(r"ray_tuner_\w+", expression)[0]
            names.add(name)
            becomes(partial(query, expression), held.values[name])
        assert names == held.values.keys(), "every metric has its panel"


def queries() -> list[str]:
    """What the panels of the Grafana dashboard ask of the run."""
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "tuner.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert all('run=~"$run"' in target["expr"] for target in targets)
    return [target["expr"].replace("$run", "held") for target in targets]


@contextmanager
def prometheus(temp: Path, folder: Path) -> Iterator[Callable[[str], dict[Any, float]]]:
    """A Prometheus with our settings, only quicker; yields what asks it."""
    settings = (DOCKER / "prometheus.yaml").read_text()
    assert "/tmp/ray/" in settings  # noqa: S108
    config = folder / "prometheus.yaml"
    config.write_text(settings.replace("/tmp/ray", str(temp)).replace("10s", "1s"))  # noqa: S108
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    ]  # fmt: skip

    def query(expression: str) -> dict[Any, float]:
        try:
            asked = urllib.parse.urlencode({"query": expression})
            answer = json.loads(fetch(f"http://{address}/api/v1/query?{asked}"))
        except OSError:  # it is not up yet
            return {}
        return {ours(x["metric"]): float(x["value"][1]) for x in answer["data"]["result"]}

    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield query
    finally:
        process.terminate()
        process.wait(30)


def test_the_actors_page_tells_slots_and_ranks_apart(held: Held) -> None:
    actors = list_actors(held.dashboard, filters=[("state", "=", "ALIVE")], detail=True)
    named = {(a.class_name, a.repr_name) for a in actors if a.class_name[0] != "_"}
    assert named == {("DistributedTrainable", "slot 0 rank 0"), ("Peer", "slot 0 rank 1")}


def test_what_each_process_does_is_named(held: Held) -> None:
    def running() -> set[str]:
        tasks = list_tasks(held.dashboard, filters=[("state", "=", "RUNNING")], limit=1000)
        return {task.name for task in tasks}

    becomes(running, {"slot 0 rank 0.train", "run_epoch"})


def test_the_job_says_what_it_searches(held: Held) -> None:
    (job,) = json.loads(fetch(f"{held.dashboard}/api/jobs/"))
    assert job["metadata"] == {"run": "held", "algorithm": "grid", "metric": "loss (min)"}
