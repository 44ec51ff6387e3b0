"""Scalars and hyperparameters of every trial, through tensorboardX."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from tuner.search.search import Event, Search


class TensorBoard:
    """Event files in ``<run>/trial_NNNN/``, a new one each time a trial goes on."""

    def __init__(self, folder: Path, skip: Collection[str] = ()) -> None:
        self._folder, self._skip = folder, frozenset(skip)
        self._writers: dict[int, Any] = {}

    def __call__(self, event: Event, search: Search) -> None:
        """Write what a result brings; close the file where a trial leaves its slot."""
        number = event.get("trial", -1)
        if event["event"] == "result" and not {"scalars", "hparams"} <= self._skip:
            self._log(number, event, search)
        if event["event"] in ("close", "fail") or event.get("verdict") == "pause":
            self._close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in list(self._writers):
            self._close(number)

    def _log(self, number: int, event: Event, search: Search) -> None:
        trial = search.trials[number]
        writer = self._writers.get(number)
        if writer is None:
            folder = self._folder / f"trial_{number:04d}"
            suffix = f".epoch{event['epoch']}"  # the name has only the second it was opened in
            writer = SummaryWriter(str(folder), filename_suffix=suffix)
            self._writers[number] = writer
            if len(trial.results) == 1 and "hparams" not in self._skip:
                _add_hparams(writer, trial.config)
        for name, value in event["metrics"].items() if "scalars" not in self._skip else ():
            writer.add_scalar(name, value, event["epoch"], walltime=event["time"])
        writer.flush()

    def _close(self, number: int) -> None:
        if writer := self._writers.pop(number, None):
            writer.close()


def _add_hparams(writer: Any, config: Mapping[str, Any]) -> None:
    """Write what the trial's hyperparameters are.

    ``SummaryWriter.add_hparams`` would open a second file, and add a list of all hyperparameters
    and metrics. TensorBoard takes the list of the first trial it finds for all trials; without one
    it goes by the trials themselves, so what only some of them have is not lost.
    """
    values = {k: v if isinstance(v, str | int | float) else str(v) for k, v in config.items()}
    _, session_start, _ = hparams(values, {})
    writer.file_writer.add_summary(session_start)
