"""Figures of a run for Ray's dashboard, Prometheus and Grafana, through ray.util.metrics.

Prometheus finds them as ``ray_tuner_...``, with the run's name as the tag ``run``;
``docker/grafana`` shows them. Ray 2.60 forgets a gauge that was not set for two of its intervals
between exports (``RAY_metrics_report_interval_ms``, 10 s each): so they are set again all the time,
however long an epoch takes, and are gone soon after the run.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from trainables.gpu_monitor import by_rank
from tuner.callbacks.observer import Observer
from tuner.search.search import Event, Search
from tuner.search.trial import Status

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tuner_trials": ("trials in this state", ("state",)),
    "tuner_best": ("the best value of the metric so far", ("metric",)),
    "tuner_epochs_planned": ("epochs of all trials together, where that is settled", ()),
    "tuner_epochs_per_second": ("over the last epochs of all trials", ()),
    "tuner_slots": ("trials that may run at once", ()),
    "tuner_slots_busy": ("slots that hold a trial", ()),
    "tuner_gpu_use_percent": ("of the time, mean over an epoch", ("slot", "rank")),
    "tuner_gpu_memory_gb": ("10^9 bytes, the most in an epoch", ("slot", "rank")),
    "tuner_gpu_power_w": ("watts, mean over an epoch", ("slot", "rank")),
    "tuner_gpu_temperature_c": ("degrees Celsius, the most in an epoch", ("slot", "rank")),
}
"""Name -> what it says, and its tags besides the run."""

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tuner_epochs": ("epochs that were finished, before a resume too", ()),
    "tuner_oom_recoveries": ("times a smaller micro-batch was taken for want of memory", ()),
    "tuner_failures": ("trials that failed, and processes that were lost", ("kind",)),
}
"""Name -> what it says, and its tags besides the run; Prometheus finds them with ``_total``."""

GPU_FIGURES = {
    "tuner_gpu_use_percent": "use_percent_mean",
    "tuner_gpu_memory_gb": "memory_gb_max",
    "tuner_gpu_power_w": "power_w_mean",
    "tuner_gpu_temperature_c": "temperature_c_max",
}
"""Gauge -> what it is of a rank's metrics."""

REPEAT_SECONDS = 1.0
"""Between two times that the gauges are set."""

RECENT_EPOCHS = 20
"""How many make up the speed."""

Series = tuple[str, tuple[str, ...]]
"""A metric's name, and the values of its tags besides the run."""


class RayMetrics(Observer):
    """Gauges and counters tagged with the run.

    What events add is counted at once. The gauges are set by a thread, so it reads the search while
    that changes: only what it copies in one step may be iterated over.
    """

    def __init__(self, run: str, search: Search, slots: int) -> None:
        self._run, self._search, self._slots = run, search, slots
        self._gauges: dict[str, Any] = {}
        self._counters: dict[str, Any] = {}
        self._ends: deque[float] = deque(maxlen=RECENT_EPOCHS)
        """When the last epochs of this session ended."""
        self._error: Exception | None = None
        """What ended the thread."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="ray-metrics", daemon=True)

    def __enter__(self) -> Self:
        from ray.util import metrics

        for name, (description, tags) in GAUGES.items():
            self._gauges[name] = metrics.Gauge(name, description, ("run", *tags))
        for name, (description, tags) in COUNTERS.items():
            self._counters[name] = metrics.Counter(name, description, ("run", *tags))
        self._count(counts(self._search))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._raise()
        self._show(gauges(self._search, self._slots, [], ended=True))

    def __call__(self, event: Event, search: Search) -> None:
        """Count what an event adds."""
        del search
        self._raise()
        if event["event"] == "result":
            self._ends.append(event["time"])
        self._count(counts_in(event))

    def _raise(self) -> None:
        if self._error:
            raise self._error

    def _repeat(self) -> None:
        while not self._ended.wait(REPEAT_SECONDS):
            try:
                self._show(gauges(self._search, self._slots, list(self._ends)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the run
                self._error = error
                return

    def _show(self, now: Mapping[Series, float]) -> None:
        for (name, values), value in now.items():
            self._gauges[name].set(value, self._tags(GAUGES[name][1], values))

    def _count(self, new: Counter[Series]) -> None:
        for (name, values), value in (+new).items():  # Ray refuses to add nothing
            self._counters[name].inc(value, self._tags(COUNTERS[name][1], values))

    def _tags(self, keys: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
        return {"run": self._run, **dict(zip(keys, values, strict=True))}


def gauges(
    search: Search, slots: int, ends: list[float], *, ended: bool = False
) -> dict[Series, float]:
    """What the gauges say of a search.

    Args:
        search: as it stands.
        slots: how many trials may run at once.
        ends: when the last epochs ended, in seconds.
        ended: the run is over, so nothing is busy, whatever was cut off.

    """
    active = [] if ended else search.active
    states = Counter(trial.status for trial in list(search.trials))
    found: dict[Series, float] = {("tuner_trials", (state,)): states[state] for state in Status}
    if ended:
        found["tuner_trials", (Status.RUNNING,)] = 0
    found["tuner_slots", ()] = slots
    found["tuner_slots_busy", ()] = len(active)
    found["tuner_epochs_per_second", ()] = _per_second(ends)
    if len(search.rule.levels) == 1:  # every trial runs to its end
        found["tuner_epochs_planned", ()] = search.num_trials * search.max_epochs
    if search.best:
        found["tuner_best", (search.metric,)] = search.value(search.best.best_loss)
    for trial in active:
        for name, figure in GPU_FIGURES.items():
            for rank, value in by_rank(trial.results.get(trial.epoch, {}), figure).items():
                found[name, (str(trial.slot), rank)] = value
    return found


def counts(search: Search) -> Counter[Series]:
    """What a search has come to when it is taken up."""
    failed = sum(trial.status is Status.FAILED for trial in search.trials)
    results = (metrics for trial in search.trials for metrics in trial.results.values())
    return Counter(
        {
            ("tuner_epochs", ()): search.epochs_done,
            ("tuner_oom_recoveries", ()): sum(int(m.get("oom_recoveries", 0)) for m in results),
            ("tuner_failures", ("trial",)): failed,
            ("tuner_failures", ("process",)): sum(trial.faults for trial in search.trials),
        }
    )


def counts_in(event: Event) -> Counter[Series]:
    """What an event adds to that."""
    if event["event"] == "result":
        recoveries = int(event["metrics"].get("oom_recoveries", 0))
        return Counter({("tuner_epochs", ()): 1, ("tuner_oom_recoveries", ()): recoveries})
    kind = {"fail": "trial", "interrupt": "process"}.get(event["event"])
    return Counter({("tuner_failures", (kind,)): 1} if kind else {})


def _per_second(ends: list[float]) -> float:
    if len(ends) < 2 or ends[-1] <= ends[0]:
        return 0.0
    return (len(ends) - 1) / (ends[-1] - ends[0])
