import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.errors import UserError
from tuner.history import open_run
from tuner.storage import EVENTS, fetched, is_remote

FILES = "trial_*/events.out.tfevents.*"
SECONDS_BETWEEN_READS = 5.0


def tensorboard(runs: Sequence[str], port: int) -> None:
    """Open TensorBoard on runs, until Ctrl-C.

    Raises:
        UserError: a folder is no run or has no events, or the port is taken.

    """
    folders = list(dict.fromkeys(map(_with_events, runs)))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorboard import default, program

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = program.TensorBoard(default.get_plugins())
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), _as_one(folders) as folder:
        # all files are read as they grow: a trial has two and more
        options = {"logdir": str(folder), "port": port, "reload_multifile": True}
        board.configure(("tensorboard",), reload_interval=SECONDS_BETWEEN_READS, **options)
        try:
            with redirect_stderr(StringIO()):  # a note of how it reads files
                url = board.launch()
        except program.TensorBoardServerException as error:
            raise UserError(
                f"--port is {port}: {error.msg}; --port 0 takes any free one"
            ) from error
        print(f"TensorBoard: {url} (Ctrl-C ends it)", flush=True)
        remote = [run for run in runs if is_remote(run)]
        while not threading.Event().wait(SECONDS_BETWEEN_READS if remote else None):
            for run in remote:
                with suppress(UserError):  # the storage may answer again
                    fetched(run, EVENTS)


def _with_events(run: str) -> Path:
    """The run's folder, which has something to show.

    Raises:
        UserError: it has not.

    """
    folder = open_run(run).folder
    fetched(run, EVENTS)
    if not any(folder.glob(FILES)):
        raise UserError(
            f"{run} has no events for TensorBoard: none of its trials has ended an epoch, or "
            "logging.skip left all out"
        )
    return folder


@contextmanager
def _as_one(folders: Sequence[Path]) -> Iterator[Path]:
    """A folder with nothing in it but the runs', which are left where they are."""
    if len(folders) == 1:
        yield folders[0]
        return
    names = [folder.name for folder in folders]
    with TemporaryDirectory(prefix="tuner-tensorboard-") as place:
        for name, folder in zip(names, folders, strict=True):
            unique = name if names.count(name) == 1 else str(folder).strip("/").replace("/", "-")
            (Path(place) / unique).symlink_to(folder)
        yield Path(place)
