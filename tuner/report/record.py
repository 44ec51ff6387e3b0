"""A run over time: what it had found after so many epochs, and which trial held which slot when."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuner.history import History, read_history
from tuner.search.journal import JOURNAL, Event, read_journal


@dataclass(frozen=True)
class Result:
    """One epoch of one trial, as the run came to it."""

    trial: int
    epoch: int
    value: float
    epochs: int
    """Epochs that the run had spent by then, over all trials."""
    seconds: float
    """Seconds that the run had taken by then."""
    best: float
    """The best value so far."""


@dataclass(frozen=True)
class Stint:
    """A trial on a slot, from and to seconds of the run."""

    trial: int
    slot: int
    start: float
    end: float
    outcome: str
    """completed, stopped, failed, paused, lost, running: how it came to leave the slot."""


@dataclass(frozen=True)
class Session:
    """A process that worked on the run, from and to seconds of the run."""

    began: float
    """Seconds since 1970."""
    start: float
    end: float
    slots: int


@dataclass(frozen=True)
class Record:
    """A run's history, and the events that it adds up to.

    Seconds of the run are counted as :attr:`tuner.search.search.Search.seconds` does: the time
    between sessions is left out.
    """

    history: History
    events: list[Event]

    @cached_property
    def results(self) -> list[Result]:
        """Every result, in the order they came."""
        search = self.history.search
        found: list[Result] = []
        best = float("inf")
        for event, seconds in _clocked(self.events):
            if event["event"] == "result":
                value = event["metrics"][search.metric]
                best = min(best, search.sign * value)
                place = event["trial"], event["epoch"]
                found.append(Result(*place, value, len(found) + 1, seconds, search.value(best)))
        return found

    @cached_property
    def sessions(self) -> list[Session]:
        """The sessions, each up to its last event."""
        begun: list[tuple[Event, float]] = []
        last = 0.0
        for event, seconds in _clocked(self.events):
            if event["event"] == "session":
                begun.append((event, seconds))
            last = seconds
        ends = [*(start for _, start in begun[1:]), last]
        return [
            Session(event["time"], start, end, event.get("slots") or 1)
            for (event, start), end in zip(begun, ends, strict=False)  # one more where none began
        ]

    @cached_property
    def stints(self) -> list[Stint]:
        """Who held which slot when, in the order they left it; what runs has no end but the last.

        A paused trial frees its slot with the result that it is paused at.
        """
        held: dict[int, tuple[int, float]] = {}
        endings: dict[int, str] = {}
        left: list[Stint] = []
        seconds = 0.0
        for event, seconds in _clocked(self.events):
            kind = event["verdict"] if event["event"] == "result" else event["event"]
            trial = event.get("trial", -1)
            if kind in ("start", "restart", "resume"):
                held[trial] = event["slot"], seconds
            elif kind in _ENDS:
                endings[trial] = _ENDS[kind]
            elif kind in _LEAVES:
                leaving = list(held) if kind == "session" else [trial] if trial in held else []
                for number in leaving:
                    outcome = _LEAVES[kind] or endings.get(number, "completed")
                    left.append(Stint(number, *held.pop(number), seconds, outcome))
        return left + [Stint(number, *place, seconds, "running") for number, place in held.items()]

    @property
    def busy(self) -> float | None:
        """The share of slot time that trials held; None before there is any."""
        offered = sum(session.slots * (session.end - session.start) for session in self.sessions)
        taken = sum(stint.end - stint.start for stint in self.stints)
        return taken / offered if offered > 0 else None

    @cached_property
    def promotions(self) -> list[tuple[int, int]]:
        """(trial, epoch) of each promotion: the epoch that the trial went on from."""
        return self._points("resume")

    @cached_property
    def pauses(self) -> list[tuple[int, int]]:
        """(trial, epoch) of each pause that no promotion followed, as yet."""
        paused = [
            (event["trial"], event["epoch"])
            for event in self.events
            if event["event"] == "result" and event["verdict"] == "pause"
        ]
        return sorted(set(paused) - set(self.promotions))

    @property
    def faults(self) -> Counter[str]:
        """How often a process was lost, by type of error; its trial may have gone on."""
        return Counter(
            event["error"]["type"] for event in self.events if event["event"] == "interrupt"
        )

    @cached_property
    def times(self) -> dict[int, tuple[float, float]]:
        """Trial -> when it was started and last heard of, in seconds since 1970."""
        times: dict[int, tuple[float, float]] = {}
        for event in self.events:
            if event["event"] in ("start", "result", "complete", "fail", "close"):
                start, _ = times.get(event["trial"], (event["time"], 0.0))
                times[event["trial"]] = start, event["time"]
        return times

    def _points(self, kind: str) -> list[tuple[int, int]]:
        epochs: Counter[int] = Counter()
        points = []
        for event in self.events:
            if event["event"] == "result":
                epochs[event["trial"]] = event["epoch"]
            elif event["event"] == kind:
                points.append((event["trial"], epochs[event["trial"]]))
        return points


_ENDS = {"complete": "completed", "stop": "stopped"}
"""Event or verdict -> how a trial leaves its slot, once its last checkpoint is saved."""
_LEAVES = {
    "pause": "paused",
    "fail": "failed",
    "interrupt": "lost",
    "damaged": "lost",
    "replace": "lost",
    "withdraw": "lost",
    "session": "lost",
    "close": "",
}
"""Event or verdict -> how a trial leaves its slot at once; empty: as it has ended."""


def read_record(run: str | Path) -> Record:
    """Read a run folder, of a run that is over, under way or broken off.

    Raises:
        UserError: as of :func:`tuner.history.read_history`.

    """
    return make_record(read_history(run))


def make_record(history: History) -> Record:
    """The record of a run that has been read."""
    known = len(history.search.trials)
    events = read_journal(history.folder / JOURNAL)  # a trial may have been started since
    return Record(history, [event for event in events if event.get("trial", -1) < known])


def _clocked(events: list[Event]) -> Iterator[tuple[Event, float]]:
    """Each event with the seconds of the run at which it came."""
    earlier = start = last = 0.0
    for event in events:
        if event["event"] in ("warm_start", "session"):
            earlier, start = earlier + last - start, event["time"]
        last = event["time"]
        yield event, earlier + last - start
