"""What checkpoints take stays below the limit, and what a search rests on stays."""

import random
from dataclasses import dataclass, field

import pytest

from tuner.search import SearchSettings, build_rule
from tuner.search.journal import MemoryJournal
from tuner.search.samplers.blank import BlankSampler
from tuner.search.search import Search
from tuner.search.trial import Decision, Status, Trial

SIZE = 10
SLOTS = 4


@dataclass
class Disk:
    """Checkpoints as they lie there, whoever names them."""

    held: set[str] = field(default_factory=set)
    peak: int = 0

    def write(self, path: str) -> None:
        self.held.add(path)
        self.peak = max(self.peak, SIZE * len(self.held))

    def delete(self, paths: list[str]) -> None:
        self.held -= set(paths)


def make(algorithm: str, journal: MemoryJournal, limit: int | None) -> Search:
    settings = SearchSettings.model_validate(
        {"algorithm": algorithm, "num_trials": 100, "max_epochs": 9}
    )
    return Search(
        BlankSampler(),
        build_rule(settings, 100),
        journal,
        num_trials=100,
        max_epochs=9,
        metric="loss",
        mode="min",
        default={"trial": 0},
        max_checkpoint_bytes=limit,
    )


def run(search: Search, disk: Disk, seed: int = 0) -> None:
    """All slots write at the same time, and only then is the search told of any: the worst."""
    draw, running = random.Random(seed), list[Trial]()
    search.open_session(slots=SLOTS)
    while True:
        while len(running) < SLOTS and (trial := search.next_job()):
            running.append(trial)
        if not running:
            return
        decided = []
        for trial in running:
            epoch = trial.epoch + 1
            assert trial.checkpoint is None or trial.checkpoint[1] in disk.held, "it cannot go on"
            decision = search.report(trial.number, epoch, {"loss": draw.random() / epoch})
            disk.write(f"{trial.number}/{epoch}")
            decided.append((trial, epoch, decision))
        for trial, epoch, decision in decided:
            disk.delete(search.checkpointed(trial.number, epoch, f"{trial.number}/{epoch}", SIZE))
            if decision is Decision.STOP:
                disk.delete(search.close(trial.number))
        running = [trial for trial, _, decision in decided if decision is Decision.CONTINUE]
        check(search, disk)


def check(search: Search, disk: Disk) -> None:
    named = {path for trial in search.trials for path in trial.checkpoints.values()}
    assert named == disk.held
    assert search.checkpoint_bytes == SIZE * len(named)
    best = search.best
    assert best is not None
    assert best.best_epoch in best.checkpoints
    for trial in search.trials:
        if trial.status in (Status.RUNNING, Status.PAUSED):
            assert trial.epoch in trial.checkpoints


@pytest.mark.parametrize(("algorithm", "limit"), [("grid", 150), ("random", 150), ("bohb", 700)])
def test_the_limit_holds_over_100_trials(algorithm: str, limit: int) -> None:
    """It does while each slot writes one more, and the search ends as it does without it."""
    free, bounded = Disk(), Disk()
    unlimited, journal = make(algorithm, MemoryJournal(), None), MemoryJournal()
    limited = make(algorithm, journal, limit)
    run(unlimited, free)
    run(limited, bounded)

    assert free.peak > limit >= bounded.peak
    assert not [event for event in journal.written if event["event"] == "overfull"]
    assert [t.results for t in limited.trials] == [t.results for t in unlimited.trials]
    assert limited.best is not None
    assert limited.best.checkpoints
    again = make(algorithm, MemoryJournal(journal.written), limit)
    assert again.checkpoint_bytes == limited.checkpoint_bytes


def test_what_may_still_go_on_is_kept_beyond_the_limit_and_that_is_said_once() -> None:
    """Every paused trial of asha may; :func:`check` sees that they are there."""
    journal, disk = MemoryJournal(), Disk()
    run(make("asha", journal, 150), disk)

    told = [event for event in journal.written if event["event"] == "overfull"]
    assert [(event["limit"], event["bytes"] > 150) for event in told] == [(150, True)]
    assert disk.peak > 150


def test_the_worst_of_what_is_over_goes_first_and_the_best_never() -> None:
    search = make("grid", MemoryJournal(), 3 * SIZE + SIZE)
    search.open_session(slots=1)
    dropped = []
    for loss in (0.5, 0.1, 0.9, 0.3, 0.7):
        trial = search.next_job()
        assert trial is not None
        for epoch in range(1, 10):
            search.report(trial.number, epoch, {"loss": loss + 1 / epoch})
            path = f"{trial.number}/{epoch}"
            dropped += search.checkpointed(trial.number, epoch, path, SIZE)
        dropped += search.close(trial.number)
    kept = [trial.number for trial in search.trials if trial.checkpoints]

    assert [path for path in dropped if path.endswith("/9")] == ["2/9", "0/9"]
    assert kept == [1, 3, 4]
