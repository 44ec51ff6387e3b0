"""A search as a state machine: events in, decisions out. No Ray, no clock, no files.

Every change is an event that is journalled first and applied second, by the same code that replays
a journal. So a search is exactly the sum of its events, and resuming one is reading them again.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from tuner.errors import UserError
from tuner.search.events import check_order
from tuner.search.trial import BASELINE, Decision, Status, Trial

Event = dict[str, Any]


class Sampler(Protocol):
    """Picks configurations.

    A proposal depends on the seed, its number and what was told, on nothing else: a replayed
    search proposes what the first one would have.
    """

    told: Counter[int]
    """Budget -> results heard there."""

    def propose(self, number: int) -> tuple[dict[str, Any], str]:
        """The configuration of trial ``number`` and its origin: grid, random or model."""

    def started(self, config: Mapping[str, Any]) -> None:
        """Hear that ``config`` is tried: proposed, replayed, or given by the user."""

    def tell(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Hear what ``config`` reached after ``budget`` epochs; ``inf`` where it failed."""

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """The same of an earlier run, which is not counted in ``told``."""


class Rule(Protocol):
    """Decides who goes on. It keeps its own account, told of every start, arrival and promotion.

    Of the baseline it knows nothing.
    """

    levels: list[int]
    """Epochs at which trials are looked at, ascending, up to max_epochs."""

    def opening(self) -> tuple[int, int]:
        """The bracket and the first target of the next new trial."""

    def started(self, trial: Trial) -> None:
        """A new trial was put on a slot."""

    def arrived(self, trial: Trial) -> None:
        """``trial`` stands at its target with ``trial.loss`` (``inf``: it failed)."""

    def promotion(self) -> tuple[Trial, int] | None:
        """A paused trial that is due to go on, and its next target. Asking changes nothing."""

    def promoted(self, trial: Trial) -> None:
        """``trial`` goes on."""

    def lost(self, trial: Trial) -> None:
        """``trial`` has failed while it was paused, and will not go on."""

    def dropped(self) -> list[Trial]:
        """Paused trials that will never be promoted."""


class EventLog(Protocol):
    """Where events go; a :class:`tuner.search.journal.Journal` keeps them."""

    @property
    def events(self) -> Iterable[Event]:
        """What happened so far."""

    def append(self, event: Event) -> None:
        """Keep one event before it is acted on."""


Listener = Callable[[Event, "Search"], None]
"""Told of every event, with the search as it then stands. It asks, and changes nothing."""


class Search:
    """Trials, who runs, who waits, and what was learned.

    Call :meth:`next_job` when a slot is free, :meth:`report` after each epoch,
    :meth:`checkpointed` when a checkpoint is saved, and :meth:`close`, :meth:`fail` or
    :meth:`interrupt` when a trial leaves its slot for good.

    Args:
        sampler: proposes configurations.
        rule: decides who goes on.
        num_trials: how many trials are started, exactly.
        max_epochs: epochs of a full trial.
        mode: ``"min"`` or ``"max"``: which way the metric improves.
        metric: the metric's name in the reports.
        default: the baseline: it comes first and runs to max_epochs, whatever the rule decides.
        initial: configurations that are tried next, in this order, with their origins.
        max_faults: how often a trial is taken up again after its process was lost.
        plateau_epochs: a trial ends after so many epochs without a better result.
        target: the search is halted once the metric is as good as this.
        max_checkpoint_bytes: the most that all checkpoints may take; None: no limit.
        journal: the events so far are applied, new ones are appended.
        clock: seconds since the epoch, for the events' time stamps.

    """

    def __init__(
        self,
        sampler: Sampler,
        rule: Rule,
        journal: EventLog,
        *,
        num_trials: int,
        max_epochs: int,
        metric: str,
        mode: str,
        default: dict[str, Any] | None = None,
        initial: Iterable[tuple[dict[str, Any], str]] = (),
        max_faults: int = 3,
        plateau_epochs: int | None = None,
        target: float | None = None,
        max_checkpoint_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.sampler, self.rule = sampler, rule
        self.num_trials, self.max_epochs = num_trials, max_epochs
        self.metric, self.sign = metric, {"min": 1.0, "max": -1.0}[mode]
        self.max_faults, self.plateau_epochs, self.target = max_faults, plateau_epochs, target
        self.max_checkpoint_bytes = max_checkpoint_bytes
        self.trials: list[Trial] = []
        self.halted: str | None = None
        self.reached: Counter[int] = Counter()
        """Budget -> results that trials reached there; what the sampler was told must equal it."""
        self.promotions = 0
        self.replacements = 0
        """Processes that were ended because memory of earlier trials had not come back."""
        self.epochs_done = 0
        self.best: Trial | None = None
        """The trial with the best result so far, at its ``best_epoch``."""
        self.warm_start: Event | None = None
        """What was learned from earlier runs, as it stands in the journal."""
        self._initial = [(default, "default")] if default is not None else []
        self._initial += initial
        self._slots = 1
        self._largest_checkpoint = 0
        self._overfull = False
        self._interrupted: deque[Trial] = deque()
        self._active: dict[int, Trial] = {}
        self._earlier_seconds = 0.0
        self._session_start = self._last_time = 0.0
        self._listeners: list[Listener] = []
        self._journal, self._clock = journal, clock
        for line, event in enumerate(journal.events, start=1):
            try:
                check_order(event, self)
                self._apply(event)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{journal}: line {line}, event {event['event']!r}, does not follow from those "
                    f"before it ({type(error).__name__}: {error}); the journal was damaged from "
                    "outside, or written by another version of tuner"
                ) from error

    # -- what one may ask ---------------------------------------------------------------------

    @property
    def active(self) -> list[Trial]:
        """Trials that hold a slot, or wait to have one back after a fault."""
        return list(self._active.values())

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing more can."""
        return not self._active and self._due() is None

    @property
    def seconds(self) -> float:
        """Time spent in all sessions, up to the last event."""
        return self._earlier_seconds + self._last_time - self._session_start

    @property
    def elapsed(self) -> float:
        """Seconds spent in all sessions, up to now."""
        return self._earlier_seconds + self._clock() - self._session_start

    @property
    def checkpoint_bytes(self) -> int:
        """What all kept checkpoints take."""
        return sum(sum(trial.checkpoint_bytes.values()) for trial in self.trials)

    def subscribe(self, listener: Listener) -> None:
        """Have ``listener`` called with every event from now on, after it was applied."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Have it called no more."""
        self._listeners.remove(listener)

    def value(self, loss: float) -> float:
        """A loss as the metric's value."""
        return self.sign * loss

    # -- events in, decisions out ---------------------------------------------------------------

    def open_session(self, **facts: Any) -> None:
        """Begin, or go on after a replay: what ran when the journal broke off waits for a slot."""
        self._commit("session", num_trials=self.num_trials, **facts)
        if self.best and self._meets_target(self.best.best_loss):
            self.halt(f"{self.metric} has reached its target")

    def learn(self, results: list[Any], first: list[dict[str, Any]], **facts: Any) -> None:
        """Start from what earlier runs have found, before anything else.

        Args:
            results: (configuration, epochs, loss) each; a loss of None: it failed.
            first: configurations to try next after those given, the best ones.
            facts: what else there is to say about them, for the journal.

        """
        self._commit("warm_start", results=results, first=first, **facts)

    def next_job(self, slot: int = 0) -> Trial | None:
        """The trial that a free slot takes up, new or from its checkpoint; None: leave it idle."""
        due = self._due()
        if due is None:
            return None
        kind, trial, target = due
        if kind == "start":
            return self._start(slot)
        assert trial is not None
        if kind == "restart":
            self._commit("restart", trial, slot=slot)
        else:
            self._commit("resume", trial, target=target, slot=slot)
        return trial

    def report(
        self, number: int, epoch: int, metrics: Mapping[str, float], *, ended: bool = False
    ) -> Decision:
        """Hear a trial's metrics after ``epoch`` epochs and decide what it does next.

        A repeated (trial, epoch), as after a fault, is not counted again. ``ended``: the trial has
        no more epochs to run, whatever its target; it stands there with what it has.

        Raises:
            KeyError: the metric is not among ``metrics``.

        """
        trial = self.trials[number]
        if trial.status is not Status.RUNNING:  # it runs only to save what a fault has lost
            return Decision.CONTINUE if epoch < trial.best_epoch else Decision.STOP
        if epoch > trial.epoch:
            loss = self.sign * metrics[self.metric]
            if not math.isfinite(loss):
                message = f"{self.metric} is {metrics[self.metric]} after epoch {epoch}"
                self.fail(number, {"type": "NotFinite", "message": message})
                return Decision.STOP
            verdict = self._verdict(trial, epoch, loss, ended=ended)
            result = {"epoch": epoch, "metrics": dict(metrics), "verdict": verdict}
            if verdict == "advance":
                result["target"] = min(e for e in self.rule.levels if e > epoch)
            self._commit("result", trial, **result)
            if self._meets_target(loss):
                self.halt(f"{self.metric} has reached {metrics[self.metric]:.6g}")
            self._drop()
        elif self.halted:
            self._commit("stop", trial)
        return self._decide(trial)

    def checkpointed(self, number: int, epoch: int, path: str, size: int = 0) -> list[str]:
        """Hear that a checkpoint of so many bytes is saved; returns paths that are needed no more.

        A trial keeps its latest checkpoint and the one of its best epoch, as long as there is room.
        """
        trial = self.trials[number]
        unsaved = trial is self.best and epoch == trial.best_epoch
        if epoch not in trial.results or (trial.status is Status.FAILED and not unsaved):
            return [path]
        replaced = trial.checkpoints.get(epoch, path)
        self._commit("checkpoint", trial, epoch=epoch, path=path, bytes=size)
        kept = {max(trial.checkpoints), trial.best_epoch}
        paths = self._forget(trial, set(trial.checkpoints) - kept) + self._make_room()
        return [*paths, replaced] if replaced != path else paths

    def close(self, number: int) -> list[str]:
        """Hear that a trial has left its slot, its last checkpoint saved; returns needless paths.

        What is over keeps the checkpoint of its best epoch.
        """
        trial = self.trials[number]
        if trial.status is Status.RUNNING:  # it came to its end without another result
            self._commit("complete", trial)
            self._drop()
        if trial.number in self._active:
            self._commit("close", trial)
        if trial.resumable or trial.best_epoch not in trial.checkpoints:
            return []
        return self._forget(trial, set(trial.checkpoints) - {trial.best_epoch})

    def fail(self, number: int, error: dict[str, Any]) -> None:
        """Hear that a trial's configuration failed; it is not tried again.

        So has a paused one whose checkpoint could not be saved. One that had come to its end just
        leaves its slot.
        """
        trial = self.trials[number]
        if trial.resumable:
            self._commit("fail", trial, error=error)
            self._drop()
        elif number in self._active:
            self._commit("close", trial)

    def interrupt(self, number: int, error: dict[str, Any]) -> None:
        """Hear that a trial's process was lost: it is taken up again, ``max_faults`` times."""
        trial = self.trials[number]
        if trial.number not in self._active or trial in self._interrupted:
            return
        if trial.status is Status.RUNNING and trial.faults >= self.max_faults:
            self.fail(number, error)
        else:
            self._commit("interrupt", trial, error=error)

    def replace(self, number: int, reason: str) -> None:
        """Hear that a trial needs another process, by no fault of its own: it is taken up again."""
        trial = self.trials[number]
        if trial.number in self._active and trial not in self._interrupted:
            self._commit("replace", trial, reason=reason)

    def damaged(self, number: int, error: dict[str, Any], epoch: int | None = None) -> None:
        """Hear that a checkpoint of a trial, or the one it went on from, is not whole.

        The trial goes on from an earlier one, or begins anew. What it reports again is not counted
        again. One that is over does so too, where it is the best and nothing else has its model.
        """
        trial = self.trials[number]
        if epoch is None and trial.checkpoint is None:
            self.fail(number, error)
            return
        epoch = trial.checkpoint[0] if epoch is None and trial.checkpoint else epoch
        self._commit("damaged", trial, epoch=epoch, error=error)

    def withdraw(self, number: int, reason: str) -> None:
        """Hear that a trial cannot start on its slot, or go on there: another one takes it up."""
        trial = self.trials[number]
        if trial.number in self._active and trial not in self._interrupted:
            self._commit("withdraw", trial, reason=reason)

    def halt(self, reason: str) -> None:
        """Start nothing more; running trials stop at their next report."""
        if not self.halted:
            self._commit("halt", reason=reason)

    def finish(self) -> list[Trial]:
        """Stop what is still paused, once nothing more can run; returns those trials."""
        paused = [t for t in self.trials if t.status is Status.PAUSED]
        for trial in paused:
            self._commit("stop", trial)
        return paused

    # -- decisions: pure, from the state ----------------------------------------------------------

    def _due(self) -> tuple[str, Trial | None, int] | None:
        if self._interrupted:
            return "restart", self._interrupted[0], self._interrupted[0].target
        if self.halted:
            return None
        if promotion := self.rule.promotion():
            return "resume", *promotion
        if len(self.trials) < self.num_trials:
            return "start", None, 0
        if not self._active and (last := self._last_resort()):
            return "resume", last, self.max_epochs
        return None

    def _meets_target(self, loss: float) -> bool:
        return self.target is not None and loss <= self.sign * self.target

    def _last_resort(self) -> Trial | None:
        """The best paused trial, where none but the baseline has reached max_epochs."""
        if any(t.status is Status.COMPLETED and not t.is_baseline for t in self.trials):
            return None
        paused = (t for t in self.trials if t.status is Status.PAUSED and math.isfinite(t.loss))
        return min(paused, key=lambda t: (-t.epoch, t.loss, t.number), default=None)

    def _start(self, slot: int) -> Trial:
        number = len(self.trials)
        if number < len(self._initial):
            config, origin = self._initial[number]
        else:
            config, origin = self.sampler.propose(number)
        baseline = BASELINE, self.rule.levels[0]
        bracket, target = baseline if origin == "default" else self.rule.opening()
        self._commit(
            "start",
            None,
            trial=number,
            config=config,
            origin=origin,
            bracket=bracket,
            target=target,
            slot=slot,
        )
        return self.trials[number]

    def _verdict(self, trial: Trial, epoch: int, loss: float, *, ended: bool) -> str | None:
        """What a new result makes of its trial. In the same event, so that none comes without."""
        if self.halted or self._meets_target(loss):
            return "stop"
        best_epoch = epoch if loss < trial.best_loss else trial.best_epoch
        plateau = self.plateau_epochs is not None and epoch - best_epoch >= self.plateau_epochs
        if ended or plateau or epoch >= self.max_epochs:
            return "complete"
        if epoch < trial.target:
            return None
        return "advance" if trial.is_baseline else "pause"

    def _decide(self, trial: Trial) -> Decision:
        if trial.status is Status.RUNNING:
            return Decision.CONTINUE
        if trial.status is not Status.PAUSED:
            return Decision.STOP
        promotion = self.rule.promotion()
        if promotion and promotion[0] is trial:  # it would be the next job: spare it the pause
            self._commit("resume", trial, target=promotion[1], slot=trial.slot)
            return Decision.CONTINUE
        return Decision.PAUSE

    def _forget(self, trial: Trial, epochs: set[int]) -> list[str]:
        """Name checkpoints no more, so that they can be deleted."""
        paths = [trial.checkpoints[epoch] for epoch in sorted(epochs)]
        if paths:
            self._commit("drop", trial, epochs=sorted(epochs))
        return paths

    def _make_room(self) -> list[str]:
        """Name no more what there is no room for, beside one that is being written on each slot."""
        if self.max_checkpoint_bytes is None:
            return []
        in_the_making = max(self._slots, len(self._active)) * self._largest_checkpoint
        room = self.max_checkpoint_bytes - in_the_making
        paths: list[str] = []
        for trial, epoch in self._expendable():
            if self.checkpoint_bytes <= room:
                return paths
            paths += self._forget(trial, {epoch})
        if self.checkpoint_bytes > room and not self._overfull:
            needed = self.checkpoint_bytes + in_the_making
            self._commit("overfull", bytes=needed, limit=self.max_checkpoint_bytes)
        return paths

    def _expendable(self) -> list[tuple[Trial, int]]:
        """(trial, epoch) of the checkpoints that nothing rests on, the first to go first.

        Those of trials that are over, the worst first; then what trials that may go on have beside
        their latest. Of all, the best stays.
        """
        every = [(trial, epoch) for trial in self.trials for epoch in trial.checkpoints]
        best = min(every, key=lambda c: (self._loss(*c), c[0].number, c[1]), default=None)
        found = [
            (trial, epoch)
            for trial, epoch in every
            if (trial, epoch) != best and not (trial.resumable and epoch == max(trial.checkpoints))
        ]
        return sorted(found, key=lambda c: (c[0].resumable, -self._loss(*c), c[0].number, c[1]))

    def _loss(self, trial: Trial, epoch: int) -> float:
        return self.sign * trial.results[epoch][self.metric]

    def _drop(self) -> None:
        for trial in self.rule.dropped():
            if trial.status is Status.PAUSED:
                self._commit("stop", trial)

    # -- the one place where state changes --------------------------------------------------------

    def _commit(self, event: str, trial: Trial | None = None, /, **fields: Any) -> None:
        record: Event = {"event": event, "time": round(self._clock(), 3)}
        if trial is not None:
            record["trial"] = trial.number
        record.update(fields)
        self._journal.append(record)
        self._apply(record)
        for listener in self._listeners:
            listener(record, self)

    def _apply(self, event: Event) -> None:
        previous, self._last_time = self._last_time, event["time"]
        if event["event"] in ("warm_start", "session"):  # the time before it is not the run's
            self._earlier_seconds += previous - self._session_start
            self._session_start = event["time"]
        apply = getattr(self, f"_on_{event['event']}")
        if "trial" in event and event["event"] != "start":
            apply(self.trials[event["trial"]], event)
        else:
            apply(event)

    def _on_session(self, event: Event) -> None:
        self.halted = None
        self._slots, self._overfull = event.get("slots", 1), False
        self._interrupted.clear()
        for trial in self.active:
            self._lose(trial)

    def _on_warm_start(self, event: Event) -> None:
        self.warm_start = event
        for config, epochs, loss in event["results"]:
            self.sampler.learn(config, epochs, math.inf if loss is None else loss)
        self._initial += [(config, "earlier") for config in event["first"]]

    def _on_start(self, event: Event) -> None:
        fields = ("config", "origin", "target", "bracket", "slot")
        trial = Trial(event["trial"], **{key: event[key] for key in fields})
        self.trials.append(trial)
        self._active[trial.number] = trial
        self.sampler.started(trial.config)
        if not trial.is_baseline:
            self.rule.started(trial)

    def _on_restart(self, trial: Trial, event: Event) -> None:
        self._interrupted.remove(trial)
        trial.attempts += 1
        trial.slot = event["slot"]

    def _on_resume(self, trial: Trial, event: Event) -> None:
        trial.status, trial.target, trial.slot = Status.RUNNING, event["target"], event["slot"]
        self._active[trial.number] = trial
        trial.attempts += 1
        self.promotions += 1
        self.rule.promoted(trial)

    def _on_result(self, trial: Trial, event: Event) -> None:
        trial.epoch = event["epoch"]
        trial.results[trial.epoch] = event["metrics"]
        trial.loss = self.sign * event["metrics"][self.metric]
        self.epochs_done += 1
        if trial.loss < trial.best_loss:
            trial.best_loss, trial.best_epoch = trial.loss, trial.epoch
        if self.best is None or trial.loss < self.best.best_loss:
            self.best = trial
        if event["verdict"]:
            getattr(self, f"_on_{event['verdict']}")(trial, event)

    def _on_checkpoint(self, trial: Trial, event: Event) -> None:
        trial.checkpoints[event["epoch"]] = event["path"]
        trial.checkpoint_bytes[event["epoch"]] = size = event.get("bytes", 0)
        self._largest_checkpoint = max(self._largest_checkpoint, size)

    def _on_drop(self, trial: Trial, event: Event) -> None:
        for epoch in event["epochs"]:
            trial.checkpoints.pop(epoch)
            trial.checkpoint_bytes.pop(epoch)

    def _on_overfull(self, event: Event) -> None:  # noqa: ARG002
        self._overfull = True

    def _on_pause(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        trial.status = Status.PAUSED
        self._release(trial)
        self._account(trial)

    def _on_advance(self, trial: Trial, event: Event) -> None:
        self._account(trial)
        trial.target = event["target"]

    def _on_complete(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        trial.status = Status.COMPLETED  # it holds its slot until its last checkpoint is saved
        self._account(trial)

    def _on_fail(self, trial: Trial, event: Event) -> None:
        waited = trial.status is Status.PAUSED
        trial.status, trial.error, trial.loss = Status.FAILED, event["error"], math.inf
        self._release(trial)
        if waited:
            self.rule.lost(trial)
        else:
            self._account(trial)

    def _on_interrupt(self, trial: Trial, event: Event) -> None:
        trial.faults += 1
        trial.error = event["error"]
        self._lose(trial)

    def _on_replace(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        self.replacements += 1
        self._lose(trial)

    def _on_damaged(self, trial: Trial, event: Event) -> None:
        trial.checkpoints.pop(event["epoch"])
        trial.checkpoint_bytes.pop(event["epoch"])
        if trial.status is not Status.PAUSED:
            self._active[trial.number] = trial
        if trial.number in self._active and trial not in self._interrupted:
            self._lose(trial)

    def _on_withdraw(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        self._lose(trial)

    def _on_stop(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        trial.status = Status.STOPPED

    def _on_close(self, trial: Trial, event: Event) -> None:  # noqa: ARG002
        self._release(trial)

    def _on_halt(self, event: Event) -> None:
        self.halted = event["reason"]
        waiting = list(self._interrupted)
        self._interrupted.clear()
        for trial in waiting:
            self._lose(trial)

    def _lose(self, trial: Trial) -> None:
        """The process of an active trial is gone: queue the trial, if there is a reason to."""
        unsaved = trial is self.best and trial.best_epoch not in trial.checkpoints
        if self.halted and trial.status is Status.RUNNING:
            trial.status = Status.STOPPED
        if trial.status is Status.RUNNING or (unsaved and trial.faults <= self.max_faults):
            self._interrupted.append(trial)
        else:
            self._release(trial)

    def _release(self, trial: Trial) -> None:
        self._active.pop(trial.number, None)
        if trial in self._interrupted:
            self._interrupted.remove(trial)

    def _account(self, trial: Trial) -> None:
        """A trial stands at its target: the model hears of it, once, and so does the rule."""
        self.reached[trial.target] += 1
        if not trial.is_baseline:
            self.rule.arrived(trial)
        self.sampler.tell(trial.config, trial.target, trial.loss)
