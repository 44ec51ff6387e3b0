"""What a user reads in a pipe, with --quiet, and what a program reads with --json."""

import json
import os
import pty
import re
import termios
from contextlib import ExitStack, suppress
from io import StringIO
from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
from rich.text import Text

from tests.tuner.callbacks.searches import Stepwise, search_of, settings_of
from tuner.callbacks.console import Console, Display
from tuner.callbacks.json_lines import EVENTS
from tuner.callbacks.lines import Lines
from tuner.callbacks.outlook import Outlook
from tuner.search.search import Search


def watched(display: Display, phase: str = "search") -> tuple[str, Search]:
    """What is printed of a search of 50 trials that lives through all that can happen."""
    settings, output = settings_of("random"), StringIO()
    search = search_of(settings, max_faults=3)
    console = Console(output, display)
    console.say("run runs/toy", "run", folder="/runs/toy")
    for observer in console.watch(search, settings, slots=4, phase=phase):
        search.subscribe(observer)
    run = Stepwise(search, message="\x1b[31mred\x1b[0m and \x07loud\nand long")
    run.run(until=lambda search: search.epochs_done == 40)
    lost, replaced = search.active[:2]
    search.interrupt(lost.number, {"type": "RankLostError", "message": "rank 1 is gone\nwhy?"})
    search.next_job()
    search.replace(replaced.number, "memory is not freed")
    search.next_job()
    ended = search.active[0]
    metrics = {"loss": 1.0, "tensor_growth": 12, "train_loss": float("nan")}
    search.report(ended.number, ended.epoch + 1, metrics)
    search.close(ended.number)
    search.halt("enough")
    run.run()
    console.warn("W&B cannot be reached")
    return output.getvalue(), search


def test_in_a_pipe_there_is_a_line_a_change_without_control_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text, _ = watched(Display.TABLE)

    lines = text.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0] == "run runs/toy"
    assert lines[1].startswith("trial 0 started, to epoch 9: augmentation=")
    assert "trial 3 failed: ValueError: red and loud" in lines
    assert [line for line in lines if line.endswith("rank 1 is gone")]
    assert [line for line in lines if line.startswith("warning: trial")]
    assert lines[-1] == "warning: W&B cannot be reached"


def shown_in_a_terminal(width: int, height: int, results: int | None = None) -> str:
    """What a real terminal gets of a search, broken off by Ctrl-C after so many results."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (height, width))
    settings = settings_of("random", num_trials=8)
    search = search_of(settings)
    parts: list[bytes] = []
    reader = Thread(target=read_all, args=(master, parts))
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal, suppress(KeyboardInterrupt):
        console = Console(terminal)
        with ExitStack() as stack:
            for observer in console.watch(search, settings, slots=4):
                search.subscribe(stack.enter_context(observer))
            console.warn("W&B cannot be reached")
            Stepwise(search).run(until=lambda search: search.epochs_done == results)
            if not search.finished:
                raise KeyboardInterrupt
    reader.join(10)
    os.close(master)
    return b"".join(parts).decode()


def read_all(descriptor: int, into: list[bytes]) -> None:
    """Read what a terminal gets, until nobody has it open."""
    with suppress(OSError):
        while part := os.read(descriptor, 4096):
            into.append(part)


def test_a_terminal_is_left_with_the_last_state_and_a_cursor() -> None:
    text = shown_in_a_terminal(70, 20, results=10)

    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.endswith("\x1b[?25h")
    rows = [Text.from_ansi(row).plain for row in re.split(r"[\r\n]+|\x1b\[\d*[A-K]", text)]
    assert max(map(len, rows)) == 70, "the bar and the hyperparameters take what there is"
    assert "warning: W&B cannot be reached" in rows
    last = max(number for number, row in enumerate(rows) if row.startswith("epochs  "))
    assert rows[last].startswith("epochs  10 of ")


def test_the_table_makes_room_for_the_summary() -> None:
    erase_lines = re.compile(r"(\x1b\[1A\x1b\[2K)+$")

    assert erase_lines.search(shown_in_a_terminal(70, 20))
    assert not erase_lines.search(shown_in_a_terminal(70, 20, results=10))


def test_quiet_prints_warnings_alone() -> None:
    text, _ = watched(Display.QUIET)

    first, second = text.splitlines()
    assert first.startswith("warning: trial ")
    assert " holds 12 more tensors, more with each epoch: " in first
    assert second == "warning: W&B cannot be reached"


def test_json_has_every_event_a_line() -> None:
    text, search = watched(Display.JSON)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert records[0].items() >= {"event": "run", "folder": "/runs/toy"}.items()
    assert all(isinstance(record["time"], float) for record in records)
    told = [record for record in records if "phase" in record]
    assert {record["event"] for record in records} - set(EVENTS) == {"run", "warning"}
    for record in told:
        assert set(record) == {"event", "time", "phase", *EVENTS[record["event"]]}
        assert record["phase"] == "search"
    results = [record for record in told if record["event"] == "result"]
    assert len(results) == search.epochs_done
    assert [r["metrics"]["train_loss"] for r in results if "train_loss" in r["metrics"]] == [None]
    assert {"halt", "interrupt", "restart", "replace", "fail"} <= {r["event"] for r in told}


def test_every_kind_of_event_is_passed_on_or_left_out_on_purpose() -> None:
    kinds = {name.removeprefix("_on_") for name in vars(Search) if name.startswith("_on_")}
    verdicts, before, inner = {"pause", "advance"}, {"session", "warm_start"}, {"drop"}

    assert set(EVENTS) == kinds - verdicts - before - inner


def test_a_broken_pipe_does_not_end_the_run() -> None:
    class Gone(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    for display in Display:
        Console(Gone(), display).say("run runs/toy")
        Console(Gone(), display).warn("it is late")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Said = list[tuple[float, str]]
"""Lines, with the seconds at which they were said."""


def said(seconds: float, **search_settings: Any) -> tuple[Said, float]:
    """Lines of a search with a result every so many seconds, and how long it took."""
    settings, clock = settings_of("asha", **search_settings), Clock()
    search, lines = search_of(settings), Said()

    def write(line: str) -> None:
        lines.append((clock.now, line))

    with Lines(write, search, Outlook(search, settings, 4, clock=clock), clock) as observer:
        search.subscribe(observer)
        run = Stepwise(search)
        while run.step():
            clock.now += seconds
    return lines, clock.now


def test_starts_results_and_ends_are_all_said_where_they_are_few() -> None:
    timed, _ = said(10.0, num_trials=20)
    lines = [line for _, line in timed]

    assert len([line for line in lines if " started, " in line]) == 20
    assert len([line for line in lines if " failed: " in line]) == 3
    search = search_of(settings_of("asha", num_trials=20))
    Stepwise(search).run()
    assert len([line for line in lines if ": loss " in line]) == search.epochs_done
    assert not [line for line in lines if "/20 trials · " in line], "nothing is held back"


def test_a_flood_of_short_trials_is_told_in_few_lines() -> None:
    timed, seconds = said(0.1, num_trials=1000)
    faults = [(when, line) for when, line in timed if " failed: " in line]
    others = [(when, line) for when, line in timed if " failed: " not in line]

    assert seconds > 100
    assert 20 <= len(faults) <= 20 + seconds / 10, "of more than a hundred"
    sums = [(when, line) for when, line in others if "/1000 trials · " in line]
    assert others[5:] == sums, "a burst of five lines comes first"
    gaps = [later - before for (before, _), (later, _) in pairwise(sums[:-1])]
    assert min(gaps) >= 5.0 - 1e-6
    assert max(gaps) < 6.0
    assert " epochs · best 0." in sums[-1][1]


def test_what_was_held_back_at_last_is_told_at_the_end() -> None:
    timed, seconds = said(0.1, num_trials=30)

    when, line = timed[-1]
    assert when == seconds
    assert line.startswith("30/30 trials · ")
    assert "running" not in line
    assert "left" not in line


def test_a_halt_and_a_trial_that_ends_by_itself_are_said() -> None:
    settings, lines = settings_of("random"), list[str]()
    search = search_of(settings)
    search.subscribe(Lines(lines.append, search, Outlook(search, settings, 4)))
    search.next_job()
    search.report(0, 1, {"loss": 1.0})
    search.close(0)
    search.next_job()
    for _ in range(50):
        search.interrupt(1, {"type": "RankLostError", "message": "rank 1 is gone"})
        search.next_job()
    search.halt("the time budget is spent")

    assert "trial 0 completed at epoch 1, by its own account" in lines
    assert lines[-1] == "no more is started: the time budget is spent"


def test_memory_that_grows_is_warned_of_once_a_run() -> None:
    settings, output = settings_of("random"), StringIO()
    search = search_of(settings)
    for observer in Console(output, Display.QUIET).watch(search, settings, slots=4):
        search.subscribe(observer)
    for number, grown in enumerate((0, 3, 5)):
        search.next_job()
        search.report(number, 1, {"loss": 1.0, "tensor_growth": grown})

    (line,) = output.getvalue().splitlines()
    assert line.startswith("warning: trial 1 holds 3 more tensors, more with each epoch: does the")
