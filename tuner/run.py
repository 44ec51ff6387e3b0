"""A run from start to end: journal, cluster, search, final fit, best model, test score."""

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.callbacks.console import Console, Display
from tuner.callbacks.observer import Guarded, Observer
from tuner.cluster import Capacity, are_most_workers_ranks, cluster, joined
from tuner.earlier import Earlier, read_earlier
from tuner.errors import (
    InterruptedRunError,
    StorageError,
    TakenOverError,
    UserError,
    storage_problem,
)
from tuner.experiment import Experiment
from tuner.final import (
    FINAL,
    FinalFit,
    drop_other,
    is_outstanding,
    open_final,
    read_final,
    wanted_fit,
)
from tuner.fit import fit_with_tune
from tuner.folder import command_to_go_on, create_folder, passing_settings, refuse_links
from tuner.history import State, how_it_ended, open_run, read_history
from tuner.output import captured
from tuner.results import (
    Best,
    choose_best,
    write_best,
    write_environment,
    write_experiment,
    write_metrics,
    write_source,
    write_trials,
)
from tuner.scoring import read_score, score_best, scores
from tuner.search import build_search
from tuner.search.journal import JOURNAL, Event, Journal
from tuner.search.search import Search
from tuner.search.trial import Trial, trial_seed
from tuner.storage import Kept, drop_checkpoints, hold, is_remote, placed
from tuner.text import shown
from tuner.trainable import Trainable, kept_source, overridden, validate

LOG = "run.log"

Damage = tuple[int, dict[str, Any], int]
"""Of a checkpoint that is not whole: the trial's number, the error, the epoch."""


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    folder: Path
    search: Search
    slots: int
    """How many trials ran at once; 0 where the search was over before."""
    actors: int
    best: Path | None = None


def start_run(
    experiment: Experiment,
    *,
    address: str | None = None,
    folder: Path | None = None,
    test: bool = True,
    display: Display = Display.TABLE,
) -> Summary:
    """Run an experiment from the beginning.

    Args:
        experiment: what to run.
        address: of a Ray cluster; None uses ``RAY_ADDRESS`` or starts one for the run.
        folder: where the experiment file lies, for what it names by relative path.
        test: whether the best model is scored on test data, where there are any.
        display: how it is shown as it goes.

    Raises:
        UserError: the experiment cannot run, or every trial failed.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.

    """
    from search_spaces import default_configuration

    trainable, space = validate(experiment, folder)
    experiment = trainable.settle(experiment, default_configuration(space))
    earlier = read_earlier(experiment, space)
    with ExitStack() as stack:
        kept = stack.enter_context(hold(experiment.location))
        create_folder(experiment)
        kept.check()  # a disk that is full
        journal = stack.enter_context(Journal(experiment.folder / JOURNAL, kept.check))
        write_experiment(experiment, space)  # from here on, no other process comes in between
        write_source(trainable, experiment.folder)
        write_environment(experiment.folder)
        return _run(
            experiment,
            trainable,
            space,
            kept,
            journal,
            address=address,
            folder=folder,
            earlier=earlier,
            test=test,
            display=display,
        )


def resume_run(
    run: str | Path,
    *,
    address: str | None = None,
    overrides: dict[str, Any] | None = None,
    display: Display = Display.TABLE,
) -> Summary:
    """Go on with a run that was interrupted, from its journal.

    Args:
        run: its folder, or the URI of one on object storage.
        address: as for :func:`start_run`.
        overrides: dotted path -> value, below ``resources``, ``stop``, ``checkpoints`` and
            ``final``. The rest is what the journal's results and decisions rest on.
        display: how it is shown as it goes.

    Raises:
        UserError: ``run`` is no run folder, or its experiment cannot run here.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.

    """
    changed = {key.partition(".")[0] for key in overrides or {}}
    for key in overrides or {}:
        if key.partition(".")[0] not in ("resources", "stop", "checkpoints", "final"):
            raise UserError(
                f"--set {key}: a run that has begun can change its resources, stop, checkpoints "
                "and final alone; start another run for the rest"
            )
    experiment = open_run(run, overrides)
    refuse_links(experiment.folder)
    source = kept_source(experiment.trainable, experiment.folder)
    trainable, space = validate(experiment, source)
    with ExitStack() as stack:
        kept = stack.enter_context(hold(experiment.location))
        kept.check()  # a disk that is full
        journal = stack.enter_context(Journal(experiment.folder / JOURNAL, kept.check))
        write_experiment(experiment, space)
        return _run(
            experiment,
            trainable,
            space,
            kept,
            journal,
            address=address,
            folder=source,
            go_on=bool(changed - {"final"}),
            display=display,
        )


def _run(
    experiment: Experiment,
    trainable: Trainable,
    space: Any,
    kept: Kept,
    journal: Journal,
    *,
    address: str | None,
    folder: Path | None,
    earlier: Earlier | None = None,
    go_on: bool = False,
    test: bool = True,
    display: Display = Display.TABLE,
) -> Summary:
    with ExitStack() as stack:
        journal.events = placed(journal.events, experiment.location)
        search = build_search(
            experiment.search,
            space,
            journal,
            max_faults=experiment.resources.max_failures,
            plateau_epochs=experiment.stop.plateau_epochs,
            target=experiment.stop.target,
            max_checkpoint_bytes=experiment.checkpoints.max_bytes,
        )
        if earlier:
            search.learn(**vars(earlier))
        terminal = stack.enter_context(captured(experiment.folder / LOG))
        stack.enter_context(_interruptible())
        searched = bool(search.trials) and search.finished and not go_on
        console = Console(terminal, display)
        grows = joined(address) is not None
        run = _Run(experiment, trainable, search, kept, console, searched, test, grows)
        run.introduce()
        try:
            if searched:
                search.finish()
                if not run.has_more and not run.write():
                    return run.finish(None)
            for line in [*overridden(experiment, space), *passing_settings(experiment)]:
                console.warn(line)
            dashboard = stack.enter_context(
                cluster(address, folder, experiment.job_metadata, run.preload)
            )
            stack.enter_context(_interruptible())  # anew: ray.init put a handler of its own
            return run.fit(dashboard)
        except KeyboardInterrupt:
            raise run.interrupted() from None
        except Exception as error:
            if problem := storage_problem(error):
                raise run.cut_off(problem) from error
            raise


@dataclass
class _Run:
    """The parts of one run, in the order they are used."""

    experiment: Experiment
    trainable: Trainable
    search: Search
    kept: Kept
    console: Console
    searched: bool
    """The search was over before."""
    test: bool
    """Score the best model on test data, where there are any."""
    grows: bool
    """The cluster was there before, and nodes may join it."""
    slots: int = 0
    actors: int = 0
    bundles: list[dict[str, float]] = field(init=False)
    capacity: Capacity = field(init=False)

    def __post_init__(self) -> None:
        storage, limit = self.experiment.storage, self.experiment.resources.max_concurrent_trials
        self.bundles = self.trainable.bundles(self.experiment.resources)
        folder = None if is_remote(storage) else self.experiment.folder
        self.capacity = Capacity(self.bundles, limit, folder, joined=self.grows)

    def introduce(self) -> None:
        """Say what is run, and where."""
        folder, search = self.experiment.folder, self.experiment.search
        self.console.say(
            f"run {shown(folder)} (log: {shown(folder / LOG)})",
            "run",
            name=self.experiment.name,
            folder=self.experiment.location,
            log=str(folder / LOG),
            algorithm=search.algorithm,
            metric=search.metric,
            mode=search.mode,
            trials=self.search.num_trials,
            max_epochs=search.max_epochs,
        )

    # -- what there is ----------------------------------------------------------------------------

    @property
    def preload(self) -> list[str]:
        """What the workers import while the run begins."""
        limit = self.experiment.resources.max_concurrent_trials
        return self.trainable.modules if are_most_workers_ranks(self.bundles, limit) else []

    @property
    def final(self) -> FinalFit | None:
        """The final fit that is wanted, as far as it has come; None: none is, or none was begun."""
        final = read_final(self.experiment.folder, self.search)
        return final if final and final.fit == wanted_fit(self.experiment, self.search) else None

    @property
    def best(self) -> Best | None:
        """The model that ``best/`` is to hold."""
        return choose_best(self.search, self.final)

    @property
    def has_more(self) -> bool:
        """There is work for a worker after the search."""
        return self._to_be_fitted or self._to_be_scored

    @property
    def _to_be_fitted(self) -> bool:
        return is_outstanding(self.experiment, self.search)

    @property
    def _to_be_scored(self) -> bool:
        if not self.test or not self.best or not self.best.checkpoint:
            return False
        values = {**self.experiment.settings, **self.best.trial.config}
        if not scores(self.trainable, values):
            return False
        score = read_score(self.experiment.folder, self.best)
        return score is None or score.error is not None

    # -- what is done -----------------------------------------------------------------------------

    def fit(self, dashboard: str | None) -> Summary:
        """Run the search under Ray Tune to its end, and what follows it."""
        slots = self.capacity.require()
        url = f"http://{dashboard}" if dashboard else None
        self.console.say(f"dashboard: {url or 'none'}", "cluster", dashboard=url, slots=slots)
        if not self.searched:
            self.run_search(slots)
        if self._to_be_fitted:
            self.run_final()
        return self.finish(self.mend_best(slots))

    def run_search(self, slots: int, damage: Damage | None = None) -> None:
        budget = self.experiment.stop.time_budget
        self.drop_leftovers()
        bridge = self._tune(
            self.experiment,
            self.search,
            slots,
            self.trial_config,
            damage=damage,
            time_budget=budget,
        )
        if bridge.problem:
            raise bridge.problem
        self.slots, self.actors = bridge.slots, self.actors + len(bridge.actors)

    def drop_leftovers(self) -> None:
        """Delete checkpoints that are there and that the journal does not name."""
        named = {path for trial in self.search.trials for path in trial.checkpoints.values()}
        drop_checkpoints(self.experiment.location, spare=named)

    def mend_best(self, slots: int) -> Exception | None:
        """Write the results, and train again what ``best/`` is to hold, if nothing has its model.

        Returns why ``best/`` cannot be written, if so.
        """
        tried: list[dict[str, Any]] = []
        while (error := self.write()) and (best := self.best) and best.origin not in tried:
            tried.append(best.origin)
            told = {"type": type(error).__name__, "message": str(error)}
            self.console.warn(f"the best model is lost: {error}. It is trained again")
            if best.final and best.final.result:
                self.run_final((0, told, best.final.result.epoch))
            else:
                self.run_search(slots, (best.trial.number, told, best.epoch))
        if tried and self.best and self.best.origin != tried[0]:
            left = f"trial {self.best.trial.number}, epoch {self.best.epoch}"
            self.console.warn(f"the best model could not be trained again: best/ is of {left}")
        return error

    def run_final(self, damage: Damage | None = None) -> None:
        """Train the best configuration afresh, or go on with that."""
        fit = wanted_fit(self.experiment, self.search)
        assert fit is not None
        self.console.say(f"final fit: trial {fit.trial}, {fit.epochs} epochs on {fit.data}")
        inside = {"name": FINAL, "storage": self.experiment.location}
        place = self.experiment.model_copy(update=inside)
        with open_final(self.kept, self.search, fit) as final:
            config = self.trial_config(final.of, **final.spec)
            self._tune(place, final.search, 1, lambda _: config, damage=damage, fit=vars(fit))

    def _tune(
        self,
        place: Experiment,
        search: Search,
        slots: int,
        make_config: Callable[[Trial], dict[str, Any]],
        *,
        damage: Damage | None = None,
        time_budget: float | None = None,
        **facts: Any,
    ) -> Any:
        """Run a search to its end, in the folder of ``place``; returns what tied it to Tune."""
        from tuner.search.tune_adapters import TuneBridge

        resources = self.experiment.resources
        capacity = self.capacity if place is self.experiment else Capacity(self.bundles, slots)
        bridge = TuneBridge(
            search,
            self.bundles,
            capacity.count,
            make_config,
            say=self.console.say,
            warn=self.console.warn,
            discard=self.kept.discard,
            placement=resources.placement,
            time_budget=time_budget,
        )
        with ExitStack() as stack:
            search.subscribe(self._warn_of_room)
            stack.callback(search.unsubscribe, self._warn_of_room)
            search.open_session(slots=slots, **facts)
            if damage:
                search.damaged(*damage)
            for observer in self._observers(place, search, slots):
                guarded = stack.enter_context(Guarded(observer, self.console.warn))
                search.subscribe(guarded)
                stack.callback(search.unsubscribe, guarded)
            stack.enter_context(_interruptible())  # Tune leaves a handler of its own behind
            if not search.finished:
                fit_with_tune(place, self.trainable, bridge, joined=self.grows)
        if not search.finished and not bridge.problem:
            raise self.interrupted(bridge.broken)
        if bridge.stopped and not bridge.problem:  # too late for the search, not for what follows
            raise KeyboardInterrupt
        return bridge

    def _warn_of_room(self, event: Event, _: Search) -> None:
        if event["event"] == "overfull":
            self.console.warn(
                f"checkpoints.max_gb is {event['limit'] / 1e9:g}, and the checkpoints that are "
                f"needed take {event['bytes'] / 1e9:.3g} GB, with one in the making on each "
                "slot: they are kept"
            )

    def _observers(self, place: Experiment, search: Search, slots: int) -> list[Observer]:
        """Who is told of every event."""
        from tuner.callbacks.metrics import RayMetrics
        from tuner.callbacks.tensorboard import TensorBoard

        observers: list[Observer] = [
            TensorBoard(place.folder, place.logging.skip),
            RayMetrics(self._title(place), search, slots),
            *self._watch(place, search, slots),
        ]
        if place.logging.wandb_project:
            from tuner.callbacks.wandb import WeightsAndBiases

            group = self.experiment.name
            observers.append(WeightsAndBiases(place, group, self.console.warn))
        return observers

    def _title(self, place: Experiment) -> str:
        """What the run is called on the dashboard; its final fit is told apart."""
        name = self.experiment.name
        return name if place is self.experiment else f"{name}/{place.name}"

    def _watch(self, place: Experiment, search: Search, slots: int) -> list[Observer]:
        """Who shows the search, or the final fit, to the user."""
        if place is not self.experiment:
            return self.console.watch(search, place.search, slots, phase=FINAL)
        budget = self.experiment.stop.time_budget
        return self.console.watch(search, place.search, slots, time_budget=budget)

    def finish(self, lost: Exception | None) -> Summary:
        """Score the best model, unless it is ``lost``; refuse where there are no results."""
        folder = self.experiment.folder
        drop_other(self.kept, wanted_fit(self.experiment, self.search))
        best = folder / "best" if self.best and not lost else None
        if best and self._to_be_scored:
            self.score(best)
        self.report(how_it_ended(self.search))
        first = next((t.error for t in self.search.trials if t.error), None)
        if self.search.best is None and first:
            raise UserError(
                f"every trial failed, the first with {first['type']}: {first['message']}; see: "
                f"python -m tuner show {shlex.quote(shown(folder))} --failures"
            )
        if lost:
            raise UserError(
                f"the best model is lost ({lost}); go on with: {command_to_go_on(folder)}"
            )
        return Summary(self.experiment.folder, self.search, self.slots, self.actors, best)

    def score(self, folder: Path) -> None:
        """Ask the best model, which ``folder`` holds, for its score on test data."""
        best = self.best
        assert best is not None
        self.console.say("scoring the best model on test data")
        changes = best.final.spec if best.final else {}
        spec = self.trial_config(best.trial, **{**changes, "log_dir": None})["spec"]
        score = score_best(self.experiment, best, spec)
        write_metrics(best, folder, score.metrics)

    def write(self) -> Exception | None:
        """Write ``trials.csv`` and ``best/`` as they stand; returns why ``best/`` cannot be."""
        from trainables.checkpoint import DamagedCheckpointError

        write_trials(self.search, self.experiment.folder / "trials.csv")
        if best := self.best:
            score = read_score(self.experiment.folder, best)
            test = score.metrics if score else {}
            try:
                write_best(best, self.experiment, self.trainable, test)
            except DamagedCheckpointError as error:
                return error
        return None

    def report(self, state: State) -> None:
        """Write ``report.html``; where that fails, or takes someone too long, the run has its end.

        The journal is still open, by which it would look as if it were under way: hence ``state``.
        """
        try:
            from tuner.report.record import make_record
            from tuner.report.run_page import REPORT, write_report

            record = make_record(replace(read_history(self.experiment.folder), state=state))
            write_report(record, self.experiment.folder / REPORT)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is
            command = f"python -m tuner report {shlex.quote(shown(self.experiment.folder))}"
            self.console.warn(f"no report ({type(error).__name__}: {error}); write it by {command}")

    def interrupted(self, reason: str | None = None) -> InterruptedRunError:
        """Write what there is; the error says why, where it was nobody's wish, and how to go on."""
        if lost := self.write():
            self.console.warn(f"best/ is not the best model: {lost}. A resume trains it again")
        self.report(State.INTERRUPTED)
        command = command_to_go_on(self.experiment.folder)
        epochs = self.search.epochs_done + (self.final.search.epochs_done if self.final else 0)
        because = f" ({reason})" if reason else ""
        return InterruptedRunError(
            f"interrupted after {epochs} epochs{because}; the state is saved{self.settle()}. Go on "
            f"with: {command}"
        )

    def cut_off(self, problem: StorageError) -> StorageError:
        """Write what can be written, where the storage fails; the error says how to go on."""
        if isinstance(problem, TakenOverError):
            return TakenOverError(str(problem))
        if not is_remote(self.experiment.storage):
            with suppress(Exception):
                self.drop_leftovers()  # half a checkpoint may be what fills the disk
        with suppress(Exception):  # each library has its own for a full disk
            self.write()
        with suppress(Exception):
            self.report(State.INTERRUPTED)
        return StorageError(
            f"{problem}. The state is saved{self.settle()}, up to epoch {self.search.epochs_done} "
            f"of the search. Then go on with: {command_to_go_on(self.experiment.folder)}"
        )

    def settle(self) -> str:
        """Have all there is brought to the storage; says where it is, if that takes it no more."""
        if self.kept.settle():
            return ""
        return f" on this machine alone (in {self.kept.folder}, so go on here)"

    def trial_config(self, trial: Trial, **changes: Any) -> dict[str, Any]:
        """What Tune hands to the trainable for a trial; ``changes``: to what its Task is told."""
        values = {**self.experiment.settings, **trial.config}
        if not self.trainable.is_task:
            return values
        search = self.experiment.search
        spec = {
            "task": self.trainable.path,
            "config": values,
            "seed": trial_seed(search.seed, trial.number),
            "max_epochs": search.max_epochs,
            "cache_dir": self.experiment.cache.dir,
            "cache_bytes": int(self.experiment.cache.max_gb * 1e9),
            "log_dir": str(self.experiment.folder / f"trial_{trial.number:04d}"),
            "log_skip": list(self.experiment.logging.skip),
            "log_share": self.experiment.logging.max_share,
        }
        spec |= changes
        if spec["log_dir"] and is_remote(self.experiment.storage):
            spec["log_dir"] = "."  # on the worker's disk; Tune brings it with each checkpoint
        return {"spec": spec}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does. Ray installs a handler of its own, which just aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals: dict[int, Callable[..., Any]] = {
        signal.SIGINT: signal.default_int_handler,  # a shell's background job ignores it
        signal.SIGTERM: lambda *_: os.kill(os.getpid(), signal.SIGINT),
    }
    before = {number: signal.signal(number, handler) for number, handler in signals.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
