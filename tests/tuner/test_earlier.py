"""Starting a search from what earlier ones have found."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from search_spaces import load_space
from tests.tuner.commands.recorded_runs import quality, record_run
from tuner.earlier import Earlier, read_earlier
from tuner.errors import UserError
from tuner.experiment import Experiment, make_experiment
from tuner.search import build_search
from tuner.search.journal import MemoryJournal
from tuner.search.search import Search
from tuner.search.simulation import simulate


def make(tmp_path: Path, space: dict[str, Any] | None = None, **search: Any) -> Experiment:
    x = {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}
    values = {
        "name": "new",
        "trainable": "task:Task",
        "search_space": {"hyperparameters": space or {"x": x}},
        "search": {
            "algorithm": "asha", "sampler": "gp", "num_trials": 12, "max_epochs": 9,
            "warm_start": [str(tmp_path / "old")], **search,
        },
        "storage": str(tmp_path),
    }  # fmt: skip
    return make_experiment(values, {})


def read(experiment: Experiment) -> Earlier:
    earlier = read_earlier(experiment, load_space(experiment.search_space))
    assert earlier is not None
    return earlier


def begin(experiment: Experiment, journal: MemoryJournal) -> Search:
    return build_search(experiment.search, load_space(experiment.search_space), journal)


def test_every_result_at_a_level_is_taken_over(tmp_path: Path) -> None:
    old = record_run(tmp_path, "old")
    earlier = read(make(tmp_path))
    reached = Counter(epochs for _, epochs, loss in earlier.results if loss is not None)
    expected = Counter(
        level for trial in old.trials for level in (1, 3, 9) if level in trial.results
    )
    assert reached == expected
    failed = [config for config, _, loss in earlier.results if loss is None]
    assert failed == [trial.config for trial in old.trials if trial.error]
    assert not earlier.dropped
    assert not earlier.outside


def test_the_best_of_them_come_right_after_the_default(tmp_path: Path) -> None:
    old = record_run(tmp_path, "old")
    experiment, journal = make(tmp_path), MemoryJournal()
    search = begin(experiment, journal)
    search.learn(**vars(read(experiment)))
    simulate(search, quality, slots=1)
    origins = [trial.origin for trial in search.trials]
    assert origins[:4] == ["default", "earlier", "earlier", "earlier"]
    best = max(old.trials, key=lambda trial: (trial.epoch, -trial.loss))
    assert search.trials[1].config == best.config
    assert origins.count("model") >= 7, "the model knows enough from the start"
    assert search.reached == search.sampler.told, "earlier results are not counted among its own"


def test_a_resumed_search_knows_them_from_its_journal(tmp_path: Path) -> None:
    record_run(tmp_path, "old")
    experiment, journal = make(tmp_path), MemoryJournal()
    search = begin(experiment, journal)
    search.learn(**vars(read(experiment)))
    simulate(search, quality, slots=1)
    for end in range(1, len(journal.written), 9):
        prefix = json.loads(json.dumps(journal.written[:end]))
        resumed = begin(experiment, MemoryJournal(prefix))
        resumed.open_session()
        simulate(resumed, quality, slots=1)
        assert [t.config for t in resumed.trials] == [t.config for t in search.trials]


def test_names_are_matched_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    record_run(tmp_path, "old")
    narrow = {"type": "float", "lower": 0.0, "upper": 0.5, "default": 0.25}
    other = {"type": "integer", "lower": 1, "upper": 3, "default": 2}
    earlier = read(make(tmp_path, {"x": narrow, "y": other}))
    assert earlier.outside > 0
    assert all(config["x"] <= 0.5 and config["y"] == 2 for config, _, _ in earlier.results)
    earlier = read(make(tmp_path, {"y": other}))
    assert earlier.dropped == ["x"]
    assert earlier.first == [{"y": 2}], "all are the same here"


def test_another_metric_is_refused(tmp_path: Path) -> None:
    record_run(tmp_path, "old")
    with pytest.raises(UserError, match=r"search.warm_start .* metric is 'val_accuracy'.*'loss'"):
        read(make(tmp_path, metric="loss"))
    with pytest.raises(UserError, match=r"mode is 'max'.*'min'"):
        read(make(tmp_path, mode="min"))


def test_guesses_are_completed_and_tried_next(tmp_path: Path) -> None:
    fields = {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}
    guesses = [{"x": 0.5}, {"x": 0.5}, {}, {"y": 0.125}]
    experiment = make(tmp_path, {"x": fields, "y": fields}, initial=guesses, warm_start=[])
    search = begin(experiment, MemoryJournal())
    simulate(search, quality, slots=1)
    assert [(t.config["x"], t.config["y"], t.origin) for t in search.trials[:3]] == [
        (0.25, 0.25, "default"),
        (0.5, 0.25, "given"),
        (0.25, 0.125, "given"),
    ]
    assert search.trials[3].origin not in ("default", "given")


def test_failures_teach_too(tmp_path: Path) -> None:
    record_run(tmp_path, "old")
    experiment = make(tmp_path)
    told: list[float] = []
    search = begin(experiment, MemoryJournal())
    search.sampler.learn = lambda *result: told.append(result[2])  # type: ignore[method-assign]
    search.learn(**vars(read(experiment)))
    assert math.inf in told
