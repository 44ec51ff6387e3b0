"""When a kind of event is due, what that costs, and what reaches the event file."""

import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import EXAMPLES
from trainables.event_log import (
    EPOCH_SECONDS,
    FIRST_GUESS,
    LOGGING_METRICS,
    LOGGING_SECONDS,
    LOGGING_SHARE,
    Account,
    Cost,
    EventLog,
    is_due,
)
from trainables.rank import Rank, TrialSpec
from trainables.task import Context

CHEAP, DEAR = Cost(spent=1.0, expected=0.1), Cost(spent=1.0, expected=3.0)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def test_a_kind_is_due_when_the_balance_pays_for_it() -> None:
    assert is_due("a", 0.1, {"a": CHEAP})
    assert not is_due("a", 0.09, {"a": CHEAP})


def test_an_unknown_kind_is_taken_to_cost_a_little() -> None:
    assert is_due("new", FIRST_GUESS, {})
    assert not is_due("new", 0.9 * FIRST_GUESS, {})


def test_what_waits_and_goes_first_keeps_its_money() -> None:
    costs = {"cheap": Cost(5.0, 0.1), "dear": DEAR}
    assert not is_due("cheap", 3.05, costs, waiting={"dear"})
    assert is_due("cheap", 3.1, costs, waiting={"dear"})
    assert is_due("dear", 3.0, costs, waiting={"cheap", "dear"})


def test_what_is_dear_holds_up_nobody_until_the_others_have_had_as_much() -> None:
    costs = {"cheap": CHEAP, "dear": DEAR}
    assert is_due("cheap", 0.1, costs, waiting={"dear"})
    costs["cheap"] = Cost(4.0, 0.1)
    assert not is_due("cheap", 0.1, costs, waiting={"dear"})


def run_trials(
    costs: dict[str, float], trials: int, epochs: int, account: Account, share: float = 0.02
) -> tuple[dict[str, int], float]:
    """How often each kind was logged, and the share of the time; an epoch of 3 seconds each."""
    clock, counts, spent = Clock(), dict.fromkeys(costs, 0), 0.0
    for _ in range(trials):
        log = EventLog(Path("unused"), max_share=share, account=account, clock=clock)
        log.__dict__["writer"] = SimpleNamespace(failed=False, close=lambda: None)
        for epoch in range(epochs):
            log.start_epoch(epoch)
            clock.pass_(3.0)
            for kind, seconds in costs.items():
                if log.wants(kind):
                    counts[kind] += 1
                log.log(kind, lambda _, seconds=seconds: clock.pass_(seconds))
            spent += log.metrics()[LOGGING_SECONDS]
        log.close()
    return counts, spent / clock.now


KINDS = {"pictures": 0.03, "curves": 0.005, "cloud": 0.12, "more": 0.04}


@pytest.mark.parametrize(("trials", "epochs"), [(1, 200), (100, 2), (200, 1)])
def test_the_share_holds_and_nothing_starves(trials: int, epochs: int) -> None:
    counts, share = run_trials(KINDS, trials, epochs, Account())
    assert 0.016 < share <= 0.02
    assert min(counts.values()) > 10
    assert counts["curves"] > 0.8 * trials * epochs
    assert counts["curves"] > counts["pictures"] > counts["cloud"]


def test_where_there_is_time_for_all_all_is_logged_in_every_epoch() -> None:
    counts, share = run_trials(dict.fromkeys(KINDS, 0.001), 1, 200, Account())
    assert min(counts.values()) > 190
    assert share < 0.002


def test_what_was_left_over_is_no_licence_for_the_next_trial() -> None:
    account = Account()
    run_trials({"a": 0.001}, 1, 1000, account)
    assert account.balance > 50
    counts, share = run_trials({"a": 0.001, "b": 0.3}, 1, 100, account)
    assert share < 0.02 + 0.4 / 300
    assert 10 < counts["b"] < 25


def test_a_dear_first_time_makes_debts_and_is_not_expected_again() -> None:
    account = Account(balance=1.0)
    account.charge("graph", 4.0)
    assert account.balance == -3.0
    assert account.costs["graph"].expected == FIRST_GUESS
    account.charge("graph", 0.01)
    assert account.costs["graph"] == Cost(4.01, 0.01)


def test_with_a_share_of_one_all_is_due_and_with_none_nothing_is() -> None:
    assert run_trials(KINDS, 1, 5, Account(), share=1.0)[0] == dict.fromkeys(KINDS, 5)
    assert run_trials(KINDS, 1, 5, Account(), share=0.0)[0] == dict.fromkeys(KINDS, 0)


def test_what_was_promised_is_not_promised_twice() -> None:
    clock = Clock()
    log = EventLog(Path("unused"), max_share=0.5, account=Account(), clock=clock)
    clock.pass_(3 * FIRST_GUESS)
    assert log.wants("a")
    assert not log.wants("b")
    assert log.wants("a")


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), {"images": 0})
    accumulator.Reload()
    return accumulator


def test_rank_0_writes_into_one_file_and_the_others_nowhere(tmp_path: Path) -> None:
    context = Context(event_log=EventLog(tmp_path, skip=["second"]))
    for kind in ("first", "second"):
        context.log(kind, lambda writer, kind=kind: writer.add_scalar(kind, 1.0, 3))
    context.writer.add_scalar("own", 2.0, 3)
    context.close()
    assert set(read(tmp_path).Tags()["scalars"]) == {"first", "own"}
    assert len(list(tmp_path.iterdir())) == 1

    elsewhere = Context(rank=1)
    elsewhere.log("first", lambda _: pytest.fail("it was called"))
    assert not elsewhere.wants("first")
    assert elsewhere.writer is None


def test_a_trial_that_logs_nothing_has_no_file(tmp_path: Path) -> None:
    context = Context(event_log=EventLog(tmp_path / "trial"))
    context.start_epoch(0)
    context.close()
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize("error", [ValueError("no"), torch.OutOfMemoryError("no room")])
def test_what_cannot_be_written_is_a_warning(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise error

    with caplog.at_level(logging.WARNING):
        Context(event_log=EventLog(tmp_path)).log("histograms", fail)
    assert "histograms could not be logged" in caplog.text
    assert str(error) in caplog.text


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from trainables.event_log import EventLog

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
log = EventLog(Path(sys.argv[1]))
noise = np.random.default_rng(0).integers(0, 256, (3, 100, 100), np.uint8)
for epoch in range(40):
    log.start_epoch(epoch)
    due = log.wants("images")
    log.log("images", lambda writer: writer.add_image("noise", noise, epoch))
    log.writer.add_scalar("own", 0.5, epoch)
log.close()
print(due)
"""


def test_a_full_disk_ends_the_logging_and_holds_up_nobody(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
    assert done.stderr == f"nothing more is logged to {tmp_path}: [Errno 27] File too large\n"
    steps = [event.step for event in read(tmp_path).Images("noise")]
    assert steps == list(range(len(steps)))
    assert len(steps) in (5, 6)  # of some 31 kB each


def test_a_file_that_cannot_be_begun_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trial").touch()
    context = Context(event_log=EventLog(tmp_path / "trial"))
    for _ in range(2):
        context.writer.add_scalar("own", 1.0, 1)
    assert not context.wants("images")
    context.close()
    assert caplog.text.count("nothing more is logged to ") == 1


def test_a_file_that_cannot_be_closed_fails_neither_its_trial_nor_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise OSError("quota exceeded")

    monkeypatch.syspath_prepend(EXAMPLES)
    rank = Rank(0, 1, gpus=0, threads=1)
    rank.build(spec(tmp_path, "toy_task:Toy"), None, 0)
    assert rank._context is not None
    monkeypatch.setattr(rank._context.writer, "close", refuse)
    rank.build(spec(tmp_path, "toy_task:Toy"), None, 0)
    assert "loss" in rank.run_epoch(0)
    rank.close()
    assert "could not be closed" in caplog.text
    assert "quota exceeded" in caplog.text


def test_what_is_written_is_seen_at_once_and_needs_no_thread(tmp_path: Path) -> None:
    threads = threading.active_count()
    log = EventLog(tmp_path)
    log.writer.add_scalar("first", 1.0, 1)
    log.writer.add_scalars("several", {"a": 1.0, "b": 2.0}, 1)
    assert threading.active_count() == threads
    assert read(tmp_path).Tags()["scalars"] == ["first"]
    for tag in ("a", "b"):
        assert read(tmp_path / "several" / tag).Tags()["scalars"] == ["several"]
    log.close()


def test_of_two_files_of_one_second_and_epoch_the_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.event_file.time", SimpleNamespace(time=lambda: 1e9))
    for tag in ("before", "after"):
        log = EventLog(tmp_path)
        log.writer.add_scalar(tag, 1.0, 1)
        log.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert set(read(tmp_path).Tags()["scalars"]) == {"before", "after"}


def spec(folder: Path, task: str, **changes: object) -> TrialSpec:
    return TrialSpec(task, {}, 0, 3, str(folder / "cache"), log_dir=str(folder / "log"), **changes)


def test_a_tasks_share_is_among_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import toy_task

    def evaluate(self: toy_task.Toy) -> dict[str, float]:
        self.context.log("weights", lambda w: w.add_histogram("w", self.model.weight.detach(), 1))
        return {"loss": 0.0, "epoch_seconds": 7.0}

    rank = Rank(0, 1, gpus=0, threads=1)
    rank.build(spec(tmp_path, "toy_task:Toy"), None, 0)
    assert not LOGGING_METRICS & set(rank.run_epoch(0))

    monkeypatch.setattr(toy_task.Toy, "evaluate", evaluate)
    monkeypatch.setattr(toy_task.Toy, "logs", ("weights",))
    rank.build(spec(tmp_path, "toy_task:Toy", log_share=1.0), None, 0)
    metrics = rank.run_epoch(0)
    rank.close()
    assert set(metrics) >= LOGGING_METRICS
    assert 0 < metrics[LOGGING_SECONDS] < metrics[EPOCH_SECONDS]
    assert 0 < metrics[LOGGING_SHARE] < 1
    assert metrics["epoch_seconds"] == 7, "a Task may use any name outside of logging/"
    assert read(tmp_path / "log").Tags()["histograms"] == ["w"]
