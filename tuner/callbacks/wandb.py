"""Weights & Biases: each trial as a run of a group (extra: wandb)."""

import os
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tuner.callbacks.observer import Observer
from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.search.search import Event, Search
from tuner.search.trial import Status, Trial
from tuner.text import plain, shown

INIT_SECONDS = 20.0
"""What the first run may wait for the server; then all are written offline."""
FINISH_SECONDS = 20.0
"""What a run that ends may take to upload the rest."""
EXIT_SECONDS = 90.0
"""What the end of the search may wait for all of them."""


def check_installed(project: str | None) -> None:
    """See that ``logging.wandb_project`` can be served.

    Raises:
        UserError: the package is not here.

    """
    if project is not None and find_spec("wandb") is None:
        raise UserError(
            f"logging.wandb_project is {project!r}, which needs a package that is not installed: "
            "pip install 'tuner[wandb]'"
        )


class WeightsAndBiases(Observer):
    """One W&B run a trial, grouped by run.

    A trial's run ends when the trial leaves its slot and is resumed when it goes on; its id is the
    same in every session. Everything of W&B happens in a thread, for it may take seconds: the
    search does not wait, and goes on without W&B where that fails. Where the server cannot be
    reached, the runs are written offline, below the run's folder.

    Args:
        place: the experiment, its folder where the runs are kept.
        group: what they are grouped by, and named after.
        warn: tells the user.

    """

    def __init__(self, place: Experiment, group: str, warn: Callable[[str], None]) -> None:
        self._place, self._group, self._warn = place, group, warn
        self._runs: dict[int, Any] = {}
        self._mode: Any = os.environ.get("WANDB_MODE", "online")
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        """What the thread is to do; None: nothing more."""
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._steps.put(None)
        self._thread.join(EXIT_SECONDS)
        if self._thread.is_alive():
            self._warn(f"W&B has not taken everything in {EXIT_SECONDS:.0f} s; {self._remedy}")

    def __call__(self, event: Event, search: Search) -> None:
        """Pass a result on, and that a trial has left its slot."""
        if "trial" not in event:
            return
        trial, kind = search.trials[event["trial"]], event["event"]
        if kind == "result":
            best = event["epoch"] == trial.best_epoch
            self._steps.put(partial(self._log, trial, event["epoch"], event["metrics"], best=best))
        elif kind == "fail":
            self._steps.put(partial(self._finish, trial.number, exit_code=1))
        elif kind == "close" or (kind == "checkpoint" and trial.status is Status.PAUSED):
            self._steps.put(partial(self._finish, trial.number, exit_code=0))

    @property
    def _folder(self) -> Path:
        return self._place.folder / "wandb"

    @property
    def _remedy(self) -> str:
        return f"what is missing can be sent later: wandb sync {shown(self._folder)}"

    # -- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        """Take the steps, in order; after an error of W&B's, none."""
        try:
            while step := self._steps.get():
                step()
            for number in list(self._runs):
                self._finish(number, exit_code=1)  # still running: the search was interrupted
        except Exception as error:  # noqa: BLE001 - the search goes on without W&B, whatever it is
            self._warn(f"W&B has failed, and gets nothing more: {_brief(error)}; {self._remedy}")
        with suppress(Exception):
            _end_service()

    def _log(self, trial: Trial, epoch: int, metrics: Mapping[str, float], *, best: bool) -> None:
        if trial.number not in self._runs:
            self._runs[trial.number] = self._open(trial, epoch)
        run = self._runs[trial.number]
        run.log(metrics, step=epoch, commit=True)
        if best:
            found = {f"best/{name}": value for name, value in metrics.items()}
            run.summary.update({**found, "best/epoch": epoch})

    def _finish(self, number: int, exit_code: int) -> None:
        if run := self._runs.pop(number, None):
            run.finish(exit_code=exit_code)

    def _open(self, trial: Trial, epoch: int) -> Any:
        """The trial's run; offline where the server is not reached."""
        try:
            return self._init(trial, epoch)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._mode = "offline"
            self._warn(f"W&B cannot be reached ({_brief(error)}): runs are kept; {self._remedy}")
            self._runs.clear()  # each goes on in another file
            _end_service()  # which holds on to the id that it could not begin
            return self._init(trial, epoch)

    def _init(self, trial: Trial, epoch: int) -> Any:
        import wandb

        settings = wandb.Settings(
            reinit="create_new",  # several at once
            resume=None if self._mode == "offline" else "allow",
            silent=True,
            console="off",
            disable_git=True,  # the run's folder has commit and diff
            disable_code=True,
            x_disable_stats=True,  # of this process, which trains nothing
            x_sync_dir_suffix=f"epoch{epoch}",  # the folder's name has only the second
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
        )
        final = trial.origin == "final"
        return wandb.init(
            project=self._place.logging.wandb_project,
            id=f"{self._token()}-{trial.number:04d}",
            name=f"{self._group}/{'final' if final else f'trial_{trial.number:04d}'}",
            group=self._group,
            job_type="final" if final else "trial",
            config={**self._place.settings, **trial.config},
            dir=str(self._place.folder),
            mode=self._mode,
            settings=settings,
        )

    def _token(self) -> str:
        """What tells this run folder's trials from all others in the project, whatever its name."""
        path = self._folder / "token"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(uuid.uuid4().hex[:12])
        return path.read_text()


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {plain(str(error))}"


def _end_service() -> None:
    """End W&B's service process, unless the user has a run of their own in this process."""
    import wandb

    if wandb.run is None:
        wandb.teardown()
