"""The table as it is drawn: what it says, and that it stays within the terminal."""

import random
import sys
from io import StringIO
from threading import Event, Thread

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.tuner.callbacks.searches import Stepwise, kinds, search_of, settings_of
from tuner.callbacks.live import LiveTable, gpu_use
from tuner.callbacks.outlook import Outlook
from tuner.search.search import Search
from tuner.search.trial import Status
from tuner.text import assignments

SLOTS = 4


def drawn(search: Search, width: int, height: int = 30, results: int = 100) -> list[str]:
    """The table, after that many results of 50 trials, a second apart."""
    seconds = iter(range(10**6))
    outlook = Outlook(search, settings_of(), SLOTS, clock=lambda: next(seconds))
    output = StringIO()
    console = Console(width=width, height=height, file=output, color_system=None)
    table = LiveTable(console, search, SLOTS, outlook)
    search.subscribe(table)
    run = Stepwise(search, SLOTS, message="a layer\x1b[31m does not fit " + 40 * "at all " + "\nso")
    for _ in range(results):
        run.step()
    console.print(table)
    return [line.rstrip() for line in output.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("results", [0, 1, 100, 10**4])
def test_no_line_is_wider_than_the_terminal(width: int, results: int) -> None:
    lines = drawn(search_of(settings_of()), width, results=results)

    assert max(map(cell_len, lines)) <= width
    assert not [line for line in lines if "\x1b" in line]


@pytest.mark.parametrize("height", [16, 24, 50])
def test_it_is_lower_than_the_terminal(height: int) -> None:
    assert len(drawn(search_of(settings_of()), 80, height)) < height


@pytest.mark.parametrize("width", [80, 200])
def test_it_says_where_the_search_stands(width: int) -> None:
    search = search_of(settings_of())
    heard = kinds(search)
    lines = drawn(search, width)
    best = search.best
    assert best is not None

    states = [sum(trial.status is status for trial in search.trials) for status in Status]
    counts = [f"{n} {status}" for n, status in zip(states, Status, strict=True) if n]
    assert lines[0] == " · ".join([f"trials  {len(search.trials)} of 50", *counts])
    assert lines[1].startswith(f"epochs  {search.epochs_done} of about ")
    assert lines[1].endswith(" left")
    assert lines[2].startswith(f"pace    slots {len(search.active)}/4 busy · ")
    assert "epochs/min" in lines[2]
    assert lines[3] == (
        f"best    loss {best.best_loss:.4f}, trial {best.number} at epoch {best.best_epoch}"
    )
    table = next(n for n, line in enumerate(lines) if line.startswith("trial  "))
    of_best = " ".join(lines[4:table]).split()
    assert of_best == [word for word in assignments(best.config) if word != "head=linear"]
    rows = [line.split() for line in lines[table + 1 : -2]]
    numbers = [int(row[0]) for row in rows]
    ranked = sorted((t for t in search.trials if t.best_epoch), key=lambda t: t.best_loss)
    assert numbers[:4] == [trial.number for trial in ranked[1:5]]
    assert set(numbers[4:]) <= {trial.number for trial in search.active}
    failed = [event["trial"] for event in heard if event["event"] == "fail"]
    assert lines[-1].startswith(
        f"last failure: trial {failed[-1]}: ValueError: a layer does not fit at all"
    )


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    lines = drawn(search_of(settings_of()), 80)

    assert lines[-1].endswith("…")
    rows = [line for line in lines if "completed" in line and "·" not in line]
    assert rows
    assert all(line.endswith("…") for line in rows)


def test_epochs_are_said_exactly_where_nothing_is_decided() -> None:
    settings = settings_of("random")
    search = search_of(settings)
    outlook = Outlook(search, settings, SLOTS)
    output = StringIO()
    console = Console(width=80, file=output, color_system=None)
    console.print(LiveTable(console, search, SLOTS, outlook))
    assert "epochs  0 of 450 " in output.getvalue()


def test_gpu_use_is_the_mean_over_ranks_and_trials_under_way() -> None:
    search = search_of(settings_of("random"))
    for use in (None, (40.0, 60.0), (90.0, 90.0)):
        trial = search.next_job()
        assert trial is not None
        ranks = enumerate(use or ())
        gpus = {f"gpu/rank{rank}/use_percent_mean": value for rank, value in ranks}
        search.report(trial.number, 1, {"loss": random.random(), **gpus})

    assert gpu_use(search.active) == 70.0
    assert gpu_use(search.active[:1]) is None


def shown(table: LiveTable, search: Search) -> list[str]:
    output = StringIO()
    Console(width=80, file=output, color_system=None).print(table)
    assert search.trials
    return output.getvalue().splitlines()


def test_the_last_failure_is_the_latest_and_not_the_highest_number() -> None:
    settings = settings_of("random")
    search = search_of(settings)
    outlook = Outlook(search, settings, SLOTS)
    table = LiveTable(Console(), search, SLOTS, outlook)
    search.subscribe(table)
    for _ in range(3):
        search.next_job()
    for number in (2, 0):
        search.fail(number, {"type": "ValueError", "message": f"of {number}"})

    assert shown(table, search)[-1].startswith("last failure: trial 0: ValueError: of 0")
    resumed = LiveTable(Console(), search, SLOTS, outlook)
    assert shown(resumed, search)[-1].startswith("failed earlier: trial 2: ")


def test_it_says_that_no_more_is_started() -> None:
    settings = settings_of("random")
    search = search_of(settings)
    search.next_job()
    search.halt("the time budget is spent")

    lines = shown(LiveTable(Console(), search, SLOTS, Outlook(search, settings, SLOTS)), search)
    assert lines[3].rstrip() == "ending  no more is started: the time budget is spent"


def test_it_is_drawn_by_a_thread_while_the_search_goes_on() -> None:
    settings = settings_of("random", num_trials=300, max_epochs=2)
    search, slots = search_of(settings), 200
    table = LiveTable(Console(), search, slots, Outlook(search, settings, slots))
    search.subscribe(table)
    ended, errors, drawn = Event(), list[Exception](), 0

    def draw() -> None:
        nonlocal drawn
        while not ended.is_set():
            try:
                table._drawn(height=30, width=80)
            except Exception as error:  # noqa: BLE001 - whatever comes of it
                errors.append(error)
            drawn += 1

    thread, interval = Thread(target=draw), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        Stepwise(search, slots).run()
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)

    assert search.finished
    assert not errors
    assert drawn > 10
