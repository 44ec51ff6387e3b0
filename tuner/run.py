"""A run from start to end: journal, cluster, search, best model."""

import hashlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tuner.callbacks.console import Progress
from tuner.cluster import cluster, count_slots, environment
from tuner.earlier import Earlier, read_earlier
from tuner.errors import InterruptedRunError, UserError
from tuner.experiment import Experiment
from tuner.history import JOURNAL, open_run
from tuner.output import captured
from tuner.results import (
    write_best,
    write_environment,
    write_experiment,
    write_source,
    write_trials,
)
from tuner.search import build_search
from tuner.search.journal import Journal
from tuner.search.search import Search
from tuner.search.trial import Trial
from tuner.trainable import Trainable, kept_source, saves, validate

LOG = "run.log"


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    folder: Path
    search: Search
    slots: int
    actors: int
    best: Path | None = None


def start_run(
    experiment: Experiment, *, address: str | None = None, folder: Path | None = None
) -> Summary:
    """Run an experiment from the beginning.

    Args:
        experiment: what to run.
        address: of a Ray cluster; None uses ``RAY_ADDRESS`` or starts one for the run.
        folder: where the experiment file lies, for what it names by relative path.

    Raises:
        UserError: the experiment cannot run, or every trial failed.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.

    """
    from search_spaces import default_configuration

    trainable, space = validate(experiment, folder)
    experiment = trainable.settle(experiment, default_configuration(space))
    earlier = read_earlier(experiment, space)
    _create_folder(experiment)
    with Journal(experiment.folder / JOURNAL) as journal:  # no other process comes in between
        write_experiment(experiment, space)
        write_source(trainable, experiment.folder)
        write_environment(experiment.folder)
        return _run(
            experiment, trainable, space, journal, address=address, folder=folder, earlier=earlier
        )


def resume_run(
    run: str | Path, *, address: str | None = None, overrides: dict[str, Any] | None = None
) -> Summary:
    """Go on with a run that was interrupted, from its journal.

    Args:
        run: its folder.
        address: as for :func:`start_run`.
        overrides: dotted path -> value, below ``resources`` and ``stop``. The rest is what the
            journal's results and decisions rest on.

    Raises:
        UserError: ``run`` is no run folder, or its experiment cannot run here.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.

    """
    for key in overrides or {}:
        if key.partition(".")[0] not in ("resources", "stop"):
            raise UserError(
                f"--set {key}: a run that has begun can change its resources and stop alone; "
                "start another run for the rest"
            )
    experiment = open_run(run, overrides)
    source = kept_source(experiment.trainable, experiment.folder)
    trainable, space = validate(experiment, source)
    with Journal(experiment.folder / JOURNAL) as journal:
        write_experiment(experiment, space)
        return _run(
            experiment,
            trainable,
            space,
            journal,
            address=address,
            folder=source,
            go_on=bool(overrides),
        )


def _run(
    experiment: Experiment,
    trainable: Trainable,
    space: Any,
    journal: Journal,
    *,
    address: str | None,
    folder: Path | None,
    earlier: Earlier | None = None,
    go_on: bool = False,
) -> Summary:
    with ExitStack() as stack:
        search = build_search(
            experiment.search,
            space,
            journal,
            max_faults=experiment.resources.max_failures,
            plateau_epochs=experiment.stop.plateau_epochs,
            target=experiment.stop.target,
        )
        if earlier:
            search.learn(**vars(earlier))
        terminal = stack.enter_context(captured(experiment.folder / LOG))
        stack.enter_context(_interruptible())
        run = _Run(experiment, trainable, search, terminal)
        if search.trials and search.finished and not go_on:
            search.finish()
            return run.finish(slots=0, actors=0)
        run.say(f"run {experiment.folder} (log: {LOG})")
        try:
            dashboard = stack.enter_context(cluster(address, folder))
            stack.enter_context(_interruptible())  # anew: ray.init put a handler of its own
            return run.fit(dashboard)
        except KeyboardInterrupt:
            raise run.interrupted() from None


@dataclass
class _Run:
    """The parts of one run, in the order they are used."""

    experiment: Experiment
    trainable: Trainable
    search: Search
    terminal: TextIO
    bundles: list[dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.bundles = self.experiment.resources.bundles()

    def say(self, text: str) -> None:
        print(text, file=self.terminal, flush=True)

    def fit(self, dashboard: str | None) -> Summary:
        """Run the search under Ray Tune to its end."""
        from tuner.callbacks.tensorboard import TensorBoard
        from tuner.search.tune_adapters import TuneBridge

        slots = count_slots(self.bundles, self.experiment.resources.max_concurrent_trials)
        if dashboard:
            self.say(f"dashboard: http://{dashboard}")
        bridge = TuneBridge(
            self.search,
            self.bundles,
            slots,
            self.trial_config,
            self.experiment.stop.time_budget,
        )
        self.search.open_session(slots=slots)
        with (
            TensorBoard(self.experiment.folder) as tensorboard,
            Progress(self.search, self.terminal, slots) as progress,
        ):
            self.search.subscribe(tensorboard)
            self.search.subscribe(progress)
            fit_with_tune(self.experiment, self.trainable, bridge)
        if bridge.problem:
            raise bridge.problem
        if not self.search.finished:
            raise self.interrupted()
        return self.finish(slots, len(bridge.actors))

    def finish(self, slots: int, actors: int) -> Summary:
        """Write the results; refuse where there are none."""
        best = self.write()
        first = next((t.error for t in self.search.trials if t.error), None)
        if self.search.best is None and first:
            raise UserError(
                f"every trial failed, the first with {first['type']}: {first['message']} "
                f"(see {self.experiment.folder / 'trials.csv'})"
            )
        return Summary(self.experiment.folder, self.search, slots, actors, best)

    def write(self) -> Path | None:
        """Write ``trials.csv`` and ``best/`` as they stand."""
        write_trials(self.search, self.experiment.folder / "trials.csv")
        return write_best(self.search, self.experiment, self.trainable)

    def interrupted(self) -> InterruptedRunError:
        """Write what there is; the error says how to go on."""
        self.write()
        command = shlex.join(["python", "-m", "tuner", "resume", _shown(self.experiment.folder)])
        return InterruptedRunError(
            f"interrupted after {self.search.epochs_done} epochs; the state is saved. Go on with: "
            f"{command}"
        )

    def trial_config(self, trial: Trial) -> dict[str, Any]:
        """What Tune hands to the trainable for a trial."""
        values = {**self.experiment.settings, **trial.config}
        if not self.trainable.is_task:
            return values
        search = self.experiment.search
        spec = {
            "task": self.trainable.path,
            "config": values,
            "seed": _trial_seed(search.seed, trial.number),
            "max_epochs": search.max_epochs,
            "cache_dir": str(Path(self.experiment.cache.dir).expanduser()),
            "cache_bytes": int(self.experiment.cache.max_gb * 1e9),
            "log_dir": str(self.experiment.folder / f"trial_{trial.number:04d}"),
        }
        return {"spec": spec}


def fit_with_tune(experiment: Experiment, trainable: Trainable, bridge: Any) -> None:
    """Have Ray Tune run the search that ``bridge`` holds, until it is finished or interrupted."""
    from ray import tune

    from trainables.distributed import DistributedTrainable
    from tuner.search.tune_adapters import SchedulerAdapter, SearchAdapter, TrialWatcher

    runs = DistributedTrainable if trainable.is_task else trainable.cls
    by_tune = not trainable.is_task and saves(trainable)
    settings = {
        "RAY_CHDIR_TO_TRIAL_DIR": 0,
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": 1,
        "TUNE_MAX_PENDING_TRIALS_PG": bridge.slots,
        "TUNE_GLOBAL_CHECKPOINT_S": 10**9,  # the journal is the state; Tune's own is not used
    }
    with environment(settings):
        tune.Tuner(
            runs,
            tune_config=tune.TuneConfig(
                search_alg=SearchAdapter(bridge),
                scheduler=SchedulerAdapter(bridge),
                num_samples=-1,
                reuse_actors=runs.reset_config is not tune.Trainable.reset_config,
                trial_name_creator=bridge.dirname,
                trial_dirname_creator=bridge.dirname,
            ),
            run_config=tune.RunConfig(
                name=experiment.name,
                storage_path=str(experiment.folder.parent),
                callbacks=[TrialWatcher(bridge)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=int(by_tune)),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        ).fit()


def _create_folder(experiment: Experiment) -> None:
    """The run's folder, new.

    Raises:
        UserError: there is one already, or it cannot be written.

    """
    folder = experiment.folder
    if (folder / JOURNAL).exists() and (folder / JOURNAL).stat().st_size:
        raise UserError(
            f"name is {experiment.name!r}: {_shown(folder)} exists already; go on with "
            f"python -m tuner resume {shlex.quote(_shown(folder))}, or take another name: "
            "--set name=..."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOURNAL).touch()
    except OSError as error:
        raise UserError(
            f"storage is {experiment.storage!r}: {folder} cannot be written ({error.strerror}); "
            "give a folder that can be: --set storage=..."
        ) from error


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


def _trial_seed(seed: int, number: int) -> int:
    """Seeds that have nothing in common, the same in every session."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _shown(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
