"""From the storage to this machine: a run's folder, or parts of it, into its mirror."""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tuner.search.journal import JOURNAL, is_open
from tuner.storage.places import is_remote, local_folder, split, uri_of
from tuner.storage.remote import Remote, Stamp, open_remote, unreachable
from tuner.storage.segments import SEGMENTS, assemble, segment_starts

STATE, BEST, EVENTS, LOG = "state", "best", "events", "run.log"
"""Parts of a run: what tells how it stands, its model, what TensorBoard reads, and its log."""


def _part(name: str) -> str:
    """Which part a file is of; empty: of none, as a checkpoint is."""
    top, _, rest = name.partition("/")
    if top.startswith("."):
        return ""
    last = name.rpartition("/")[2]
    if top == "final" and "/" in rest and not rest.startswith(f"{SEGMENTS}/"):
        return EVENTS if _is_events(last) else ""
    if top.startswith("trial_"):
        return EVENTS if _is_events(last) else ""
    if top in (BEST, LOG):
        return top
    of_tune = last.startswith((".", "experiment_state", "search_gen_state", "tuner.pkl"))
    return "" if of_tune or top == "wandb" else STATE


def _is_events(name: str) -> bool:
    return name.startswith("events.out.tfevents.")


def fetched(location: str | Path, *parts: str) -> Path:
    """A run's folder on this machine; of one on object storage, the mirror with ``parts`` in it.

    The folder of a run that a process of this machine is running is left as it is: that process
    knows best. What has not changed is not fetched again.

    Raises:
        UserError: the storage cannot be read.

    """
    folder = local_folder(location)
    if not is_remote(location):
        return folder
    if is_run_here(folder):
        return folder
    remote = open_remote(str(location))
    try:
        with locked(folder):
            if not is_run_here(folder):
                fetch(remote, folder, {STATE, *parts})
    except OSError as error:
        raise unreachable(remote.location, error) from error
    return folder


def fetch_model(location: str | Path) -> Path:
    """The ``best/`` folder of a run, or that folder itself, on this machine.

    Raises:
        UserError: the storage cannot be read.

    """
    text = str(location)
    if not is_remote(text):
        folder = local_folder(location)
        return folder / "best" if (folder / "best").is_dir() else folder
    storage, name = split(text)
    return fetched(storage if name == "best" else text, BEST) / "best"


def bring(path: Path) -> None:
    """Bring a file of a mirror, written there after the run, to the storage.

    Raises:
        UserError: the storage cannot be written.

    """
    if (uri := uri_of(path.parent)) is None:
        return
    remote = open_remote(uri)
    try:
        remote.write(path.name, path.read_bytes())
    except OSError as error:
        raise unreachable(uri, error) from error


def run_names(storage: str) -> list[str]:
    """The runs in a storage, by name.

    Raises:
        UserError: it cannot be read.

    """
    if not is_remote(storage):
        return sorted(path.parent.name for path in local_folder(storage).glob(f"*/{JOURNAL}"))
    remote = open_remote(storage)
    try:
        return sorted(name for name in remote.folders() if remote.files(f"{name}/{SEGMENTS}"))
    except OSError as error:
        raise unreachable(storage, error) from error


def is_run_here(folder: Path) -> bool:
    """Whether a process of this machine works on the run whose folder, or mirror, it is."""
    return (folder / JOURNAL).is_file() and is_open(folder / JOURNAL)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from fetching into the mirror at the same time."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


def fetch(remote: Remote, folder: Path, parts: set[str]) -> dict[str, int]:
    """Bring a mirror up to date: the journals, and ``parts`` of the rest.

    Returns the bytes that the storage has of each journal, by the folder it is in: ``""`` or
    ``final/``. The mirror's has more, where a process of this machine died.
    """
    files = remote.files()
    if not any(name.startswith(f"{SEGMENTS}/") for name in files):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that is there no more
    found = {name: _fetch_journal(remote, folder, name, files) for name in ("", "final/")}
    journals = {name: size for name, size in found.items() if size}
    if "final/" not in journals:
        (folder / "final" / JOURNAL).unlink(missing_ok=True)
    wanted = {
        name: stamp
        for name, stamp in files.items()
        if _part(name) in parts and Path(name).parent.name != SEGMENTS
    }
    if BEST in parts:  # a file of an earlier model must not stay
        for path in list((folder / "best").rglob("*")):
            if path.is_file() and str(path.relative_to(folder)) not in wanted:
                path.unlink()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: _fetch_file(remote, folder, *item), wanted.items()))
    return journals


def _fetch_journal(remote: Remote, folder: Path, below: str, files: dict[str, Stamp]) -> int:
    """Put together a journal, ``below`` the run's folder; returns its bytes, 0 if there is none."""
    starts = segment_starts(name for name in files if name.startswith(f"{below}{SEGMENTS}/"))
    if not starts:
        return 0
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(remote.read, starts.values()))
    try:
        whole = assemble({s: c for s, c in zip(starts, contents, strict=True) if c is not None})
    except ValueError as error:
        raise OSError(f"{error}: a segment in {below}{SEGMENTS}/ was removed") from error
    path = folder / below / JOURNAL
    # what a process of this machine could not bring before it died is good
    if not path.exists() or not path.read_bytes().startswith(whole):
        _write(path, whole)
    return len(whole)


def _fetch_file(remote: Remote, folder: Path, name: str, stamp: Stamp) -> None:
    _, changed = stamp
    path = folder / _merged(name)
    if changed and path.is_file() and stamp_of(path) == stamp:
        return
    content = remote.read(name)
    if content is not None:
        _write(path, content)
        os.utime(path, ns=(changed, changed))


def _merged(name: str) -> str:
    """Event files of every attempt at a trial in one folder: they are one trial's."""
    top, slash, rest = name.partition("/")
    if _part(name) == EVENTS and top.startswith("trial_") and top.count("_") == 2:
        return top.rpartition("_")[0] + slash + rest
    return name


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file here."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    beside.write_bytes(content)
    beside.replace(path)
