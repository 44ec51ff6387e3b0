from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from search_spaces import dump_space, load_space
from tests.conftest import EXAMPLES
from tests.tuner.report.records import (
    BEGAN,
    event,
    record_of,
    result,
    start,
    two_sessions,
    two_slots,
    write_run,
)
from tuner.report.record import Result, Session, Stint, read_record
from tuner.search import SEARCHES, SearchSettings, build_search
from tuner.search.journal import JOURNAL, MemoryJournal
from tuner.search.simulation import simulate


def test_each_result_comes_with_the_epochs_and_seconds_spent_and_the_best_so_far() -> None:
    assert record_of(two_slots()).results == [
        Result(trial=1, epoch=1, value=0.9, epochs=1, seconds=10, best=0.9),
        Result(trial=0, epoch=1, value=0.8, epochs=2, seconds=12, best=0.8),
        Result(trial=0, epoch=2, value=0.5, epochs=3, seconds=22, best=0.5),
        Result(trial=1, epoch=2, value=0.4, epochs=4, seconds=30, best=0.4),
        Result(trial=0, epoch=3, value=0.6, epochs=5, seconds=32, best=0.4),
        Result(trial=1, epoch=3, value=0.3, epochs=6, seconds=40, best=0.3),
    ]


def test_where_more_is_better_the_best_so_far_is_the_highest() -> None:
    record = record_of(two_slots(), mode="max")

    assert [found.best for found in record.results] == [0.9] * 6


def test_slots_are_held_from_a_start_to_what_ends_it() -> None:
    record = record_of(two_slots())

    assert record.stints == [
        Stint(trial=1, slot=1, start=0, end=10, outcome="paused"),
        Stint(trial=2, slot=1, start=10, end=20, outcome="failed"),
        Stint(trial=0, slot=0, start=0, end=33, outcome="completed"),
        Stint(trial=1, slot=1, start=20, end=40, outcome="completed"),
    ]
    assert record.busy == pytest.approx((33 + 40) / 80)
    assert record.sessions == [Session(BEGAN, 0, 40, slots=2)]


def test_time_between_sessions_is_left_out_and_what_ran_has_lost_its_slot() -> None:
    record = record_of(two_sessions())

    assert record.sessions == [Session(BEGAN, 0, 10, slots=1), Session(BEGAN + 110, 10, 20, 1)]
    assert record.stints == [
        Stint(trial=0, slot=0, start=0, end=10, outcome="lost"),
        Stint(trial=0, slot=0, start=12, end=20, outcome="completed"),
    ]
    assert record.busy == pytest.approx(18 / 20)
    assert [found.seconds for found in record.results] == [10, 20]
    assert record.results[-1].seconds == record.history.search.seconds


def test_a_lost_process_and_a_replaced_one_free_the_slot() -> None:
    lost = {"type": "ActorDiedError", "message": "gone"}
    events = [
        event(0, "session", num_trials=1, slots=1),
        start(0, 0, 0, 0.25),
        event(5, "interrupt", 0, error=lost),
        event(6, "restart", 0, slot=0),
        event(8, "replace", 0, reason="memory"),
        event(9, "restart", 0, slot=0),
        result(12, 0, 1, 0.8),
    ]

    record = record_of(events)

    assert [(s.start, s.end, s.outcome) for s in record.stints] == [
        (0, 5, "lost"), (6, 8, "lost"), (9, 12, "running"),
    ]  # fmt: skip
    assert record.faults == {"ActorDiedError": 1}


def test_a_trial_that_has_ended_keeps_its_slot_until_its_checkpoint_is_saved() -> None:
    events = [
        *two_slots()[:-1],
        event(47, "checkpoint", 1, epoch=3, path="p"),
        event(48, "close", 1),
    ]

    assert record_of(events).stints[-1] == Stint(1, 1, 20, 48, "completed")


def test_pauses_that_a_promotion_followed_are_told_from_those_that_stayed() -> None:
    events = [*two_slots()[:6]]  # trial 1 waits at epoch 1

    assert (record_of(events).pauses, record_of(events).promotions) == ([(1, 1)], [])
    whole = record_of(two_slots())
    assert (whole.pauses, whole.promotions) == ([], [(1, 1)])


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_on_a_simulated_search_no_slot_is_held_twice_at_a_time(algorithm: str) -> None:
    settings = {"algorithm": algorithm, "num_trials": 20, "max_epochs": 9}
    asked = SearchSettings.model_validate({**settings, "metric": "loss", "mode": "min"})
    journal = MemoryJournal()
    ticks = iter(range(10**6))
    space = load_space(str(EXAMPLES / "every_kind.yaml"))
    search = build_search(asked, space, journal, clock=lambda: float(next(ticks)))
    search.open_session(slots=3)
    simulate(search, lambda config, epoch: config["lr"] / epoch, slots=3)
    record = record_of(journal.written, space=dump_space(space), **settings)

    held = defaultdict(list)
    for stint in record.stints:
        held[stint.slot].append((stint.start, stint.end))
    assert set(held) == {0, 1, 2}
    for spans in held.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert 0 < (record.busy or 0) <= 1
    assert len(record.promotions) == search.promotions
    assert len(record.results) == search.epochs_done
    assert record.results[-1].best == search.value(search.best.best_loss)


def test_a_run_without_events_has_nothing() -> None:
    record = record_of([])

    assert (record.results, record.stints, record.sessions, record.busy) == ([], [], [], None)


def test_a_run_folder_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path, two_slots())
    before = (folder / JOURNAL).read_bytes()

    record = read_record(folder)

    assert record.events == two_slots()
    assert record.times == {
        0: (BEGAN, BEGAN + 33),
        1: (BEGAN, BEGAN + 40),
        2: (BEGAN + 10, BEGAN + 20),
    }
    assert (folder / JOURNAL).read_bytes() == before
