from typing import Any

import pytest

from search_spaces import load_space
from tuner.errors import UserError
from tuner.search import SEARCHES, SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.replay import has_ended, replay
from tuner.search.search import Event, Search
from tuner.search.simulation import simulate

SPACE = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0, "default": 0.25}}}


def evaluate(config: dict[str, Any], epoch: int) -> float:
    if config["x"] > 0.9:
        raise ValueError("too much")
    return float(config["x"]) * epoch


def settings_of(algorithm: str) -> SearchSettings:
    return SearchSettings.model_validate(
        {"algorithm": algorithm, "num_trials": 14, "max_epochs": 9, "metric": "m", "mode": "max"}
    )


def make_search(algorithm: str, journal: MemoryJournal) -> Search:
    return build_search(settings_of(algorithm), load_space(SPACE), journal)


def state(search: Search) -> tuple[Any, ...]:
    return (
        [vars(trial) for trial in search.trials],
        search.best and search.best.number,
        [trial.number for trial in search.active],
        search.reached,
        search.promotions,
        search.epochs_done,
        search.num_trials,
        search.halted,
        search.seconds,
    )


def record(algorithm: str) -> tuple[Search, list[Event]]:
    journal = MemoryJournal()
    search = make_search(algorithm, journal)
    search.open_session(slots=2)
    simulate(search, evaluate, slots=2)
    return search, journal.written


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_without_space_and_model_the_events_add_up_to_the_same(algorithm: str) -> None:
    search, events = record(algorithm)

    assert state(replay(events, settings_of(algorithm))) == state(search)


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_so_does_every_prefix_of_them(algorithm: str) -> None:
    _, events = record(algorithm)

    for count in range(1, len(events), 3):
        resumed = make_search(algorithm, MemoryJournal(events[:count]))
        assert state(replay(events[:count], settings_of(algorithm))) == state(resumed)


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_a_search_has_ended_with_its_last_event_and_not_before(algorithm: str) -> None:
    _, events = record(algorithm)

    ended = [
        has_ended(replay(events[:count], settings_of(algorithm)))
        for count in range(len(events) + 1)
    ]

    assert ended[-1]
    assert not any(ended[:-1])


def test_the_number_of_trials_is_that_of_the_last_session() -> None:
    events = [{"event": "session", "time": 1.0, "num_trials": count} for count in (3, 5)]

    assert replay(events, settings_of("random")).num_trials == 5


def test_a_run_begins_with_its_first_session_and_not_before() -> None:
    warm_start = {"event": "warm_start", "time": 1000.0, "results": [], "first": []}
    events = [warm_start, *({"event": "session", "time": t, "num_trials": 3} for t in (1040, 1090))]

    assert replay(events[:1], settings_of("asha")).seconds == 0
    assert replay(events[:2], settings_of("asha")).seconds == 0
    assert replay(events, settings_of("asha")).seconds == 0, "nothing was done in between"

    halt = {"event": "halt", "time": 1045.0, "reason": "its time is over"}
    assert replay([*events[:2], halt], settings_of("asha")).seconds == 5
    assert replay([*events[:2], halt, events[2]], settings_of("asha")).seconds == 5


START = {"config": {"x": 0.5}, "origin": "random", "bracket": 0, "target": 1, "slot": 0}
METRICS = {"metrics": {"m": 0.5}, "verdict": None}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "start", "trial": 2, **START}, "ValueError: trial is 2, and the next one is 1"),
        ({"event": "close", "trial": 7}, "IndexError: "),
        ({"event": "restart", "trial": 0, "slot": 0}, "ValueError: "),
        ({"event": "drop", "trial": 0, "epochs": [3]}, "KeyError: 3"),
        (
            {"event": "checkpoint", "trial": 0, "epoch": 3, "path": "p"},
            "ValueError: trial 0 has no result of epoch 3",
        ),
        (
            {"event": "result", "trial": 0, "epoch": 1, "metrics": {"loss": 1}, "verdict": None},
            "KeyError: 'm'",
        ),
        (
            {"event": "result", "trial": 0, "epoch": 1, **METRICS, "verdict": "advance"},
            "KeyError: 'target'",
        ),
        ({"event": "halt", "trial": 0, "reason": ""}, "TypeError: "),
    ],
)
def test_an_event_that_cannot_follow_is_named(event: dict[str, Any], said: str) -> None:
    events = [{"event": "start", "time": 1.0, "trial": 0, **START}, {"time": 2.0, **event}]
    with pytest.raises(UserError) as caught:
        replay(events, settings_of("asha"), "runs/a/journal.jsonl")
    beginning = f"runs/a/journal.jsonl: line 2, event '{event['event']}', does not follow from"
    assert str(caught.value).startswith(f"{beginning} those before it ({said}")
