"""Scalars and hyperparameters of every trial, as event files of TensorBoard."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as FileEvent
from tensorboardX.summary import hparams, scalar

from tuner.callbacks.observer import Observer
from tuner.search.search import Event, Search


class TensorBoard(Observer):
    """Event files in ``<run>/trial_NNNN/``, a new one each time a trial goes on.

    They are written at once: tensorboardX's own ``SummaryWriter`` does it in a thread, which ends
    where the disk is full, and then waits for it for ever.
    """

    def __init__(self, folder: Path, skip: Collection[str] = ()) -> None:
        self._folder, self._skip = folder, frozenset(skip)
        self._files: dict[int, Any] = {}

    def __call__(self, event: Event, search: Search) -> None:
        """Write what a result brings; close the file where a trial leaves its slot."""
        number = event.get("trial", -1)
        if event["event"] == "result" and not {"scalars", "hparams"} <= self._skip:
            self._log(number, event, search)
        if event["event"] in ("close", "fail") or event.get("verdict") == "pause":
            self._close(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in list(self._files):
            self._close(number)

    def _log(self, number: int, event: Event, search: Search) -> None:
        trial = search.trials[number]
        file = self._files.get(number)
        if file is None:
            file = self._files[number] = self._open(number, event["epoch"])
            if len(trial.results) == 1 and "hparams" not in self._skip:
                file.write_event(_hparams(trial.config, event["time"]))
        if "scalars" not in self._skip:
            file.write_event(_scalars(event))
        file.flush()

    def _open(self, number: int, epoch: int) -> Any:
        folder = self._folder / f"trial_{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f".epoch{epoch}"  # the name has only the second it was opened in
        return EventsWriter(str(folder / "events"), suffix)

    def _close(self, number: int) -> None:
        if file := self._files.pop(number, None):
            file.close()


def _scalars(result: Event) -> Any:
    """The metrics of a result."""
    event = FileEvent(wall_time=result["time"], step=result["epoch"])
    for name, value in result["metrics"].items():
        event.summary.MergeFrom(scalar(name, value))
    return event


def _hparams(config: Mapping[str, Any], time: float) -> Any:
    """What the trial's hyperparameters are.

    ``SummaryWriter.add_hparams`` would open a second file, and add a list of all hyperparameters
    and metrics. TensorBoard takes the list of the first trial it finds for all trials; without one
    it goes by the trials themselves, so what only some of them have is not lost.
    """
    values = {k: v if isinstance(v, str | int | float) else str(v) for k, v in config.items()}
    _, session_start, _ = hparams(values, {})
    return FileEvent(wall_time=time, summary=session_start)
