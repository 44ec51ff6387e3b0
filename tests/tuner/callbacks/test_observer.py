"""A search goes on where one who only watches it fails."""

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from rich.console import Console as RichConsole

from tests.tuner.callbacks.searches import Stepwise, search_of, settings_of
from tuner.callbacks import live
from tuner.callbacks.console import Console
from tuner.callbacks.live import LiveTable
from tuner.callbacks.observer import Guarded, Observer
from tuner.callbacks.outlook import Outlook
from tuner.callbacks.tensorboard import TensorBoard
from tuner.search.search import Event, Search


class Failing(Observer):
    """Fails where it is told to, and keeps what it was asked for."""

    def __init__(self, *, at: str) -> None:
        self.at, self.calls = at, list[str]()

    def _hear(self, what: str) -> None:
        self.calls.append(what)
        if what == self.at:
            raise RuntimeError(f"at {what}\nand more")

    def __enter__(self) -> Self:
        self._hear("enter")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hear("exit")

    def __call__(self, event: Event, search: Search) -> None:  # noqa: ARG002
        self._hear(event["event"])


def watched(observer: Observer) -> list[str]:
    """What is warned of while ``observer`` watches a search of eight trials, to its end."""
    warnings: list[str] = []
    search = search_of(settings_of(num_trials=8))
    with Guarded(observer, warnings.append) as guarded:
        search.subscribe(guarded)
        Stepwise(search).run()
    assert search.finished
    return warnings


@pytest.mark.parametrize(
    ("at", "heard"), [("enter", ["enter"]), ("result", [*4 * ["start"], "result", "exit"])]
)
def test_one_that_fails_is_told_once_and_hears_nothing_more(
    at: str, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    observer = Failing(at=at)
    warnings = watched(observer)

    said = f"Failing has failed, and shows nothing more of this run: RuntimeError: at {at}"
    assert warnings == [said]
    if at == "result":
        observer.calls.remove("enter")
    assert observer.calls == heard
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


def test_an_end_that_fails_is_told_too() -> None:
    (warning,) = watched(Failing(at="exit"))

    assert "at exit" in warning


def test_what_stops_a_run_is_no_failure() -> None:
    class Interrupted(Observer):
        def __call__(self, event: Event, search: Search) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched(Interrupted())


def test_a_file_in_the_way_of_a_trials_folder_ends_tensorboard_alone(tmp_path: Path) -> None:
    (tmp_path / "trial_0000").touch()

    (warning,) = watched(TensorBoard(tmp_path))

    assert warning.startswith("TensorBoard has failed, and shows nothing more of this run: File")


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", [0, 500])
def test_a_full_disk_ends_tensorboard_alone(size: int, tmp_path: Path) -> None:
    """With ``SummaryWriter`` the search would wait for ever for a thread that has ended."""
    metrics = {"loss": 1.0, **{f"metric_{number}": 0.0 for number in range(300)}}
    search, warnings, started = search_of(settings_of("random")), list[str](), time.monotonic()
    with full_disk(size), Guarded(TensorBoard(tmp_path), warnings.append) as guarded:
        search.subscribe(guarded)
        search.next_job()
        for epoch in range(1, 4):
            search.report(0, epoch, metrics)

    (warning,) = warnings
    assert warning.startswith("TensorBoard has failed, and shows nothing more of this run: OSErr")
    assert time.monotonic() - started < 10


def test_a_table_that_cannot_be_drawn_keeps_nobody_from_printing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rich draws it anew, from a thread, and below all that is printed meanwhile."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("no room")

    monkeypatch.setattr(live, "_states", fail)
    settings, output = settings_of(num_trials=8), StringIO()
    search = search_of(settings)
    screen = RichConsole(file=output, force_terminal=True, width=80)
    console = Console(output)
    console._rich = screen  # type: ignore[assignment]
    table = LiveTable(screen, search, 4, Outlook(search, settings, 4))
    with Guarded(table, console.warn) as guarded:
        search.subscribe(guarded)
        console.say("W&B cannot be reached")
        Stepwise(search).run()

    assert search.finished
    text = output.getvalue()
    assert "W&B cannot be reached" in text
    assert text.count("LiveTable has failed") == 1
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is back"
