"""A run's folder while the run is worked on; of one on object storage, its mirror."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tuner.errors import StorageError, TakenOverError
from tuner.search.journal import JOURNAL
from tuner.storage.fetching import BEST, LOG, STATE, fetch, locked, stamp_of
from tuner.storage.lease import Lease
from tuner.storage.places import is_remote, local_folder
from tuner.storage.remote import Remote, Stamp, open_remote, unreachable
from tuner.storage.segments import SEGMENTS, Segments

logger = logging.getLogger(__name__)

SECONDS_BEHIND = 0.8
"""How often new events are brought to the storage."""
FILES_SECONDS = 5.0
"""How often other files are, that have changed."""
RETRY_SECONDS = 60.0
"""How long the storage may fail before the run ends."""
RESERVE_BYTES = 32 * 2**20
"""Room on the disk at which a run ends, while it can still write where it stands."""
_MARKER = f"{BEST}/config.yaml"
"""What ``best/`` is not a model without; it comes last."""


class Kept:
    """The folder of a run on a disk, while it is run. There is nothing to bring anywhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def check(self) -> None:
        """Look whether the run can go on.

        Raises:
            StorageError: its disk is full, or its storage fails.

        """
        free = shutil.disk_usage(self.folder).free
        if free < RESERVE_BYTES:
            raise StorageError(
                f"the disk that {self.folder} is on is full: {free / 2**20:.0f} MiB are left, and "
                f"{RESERVE_BYTES / 2**20:.0f} are kept for the run's own state; make room there "
                "(checkpoints.max_gb bounds what the next run takes)"
            )

    def discard(self, delete: Callable[[], None]) -> None:
        """Delete what the journal names no more."""
        delete()

    def settle(self) -> bool:
        """Bring all there is to where the run is kept; returns whether it is there now.

        Raises:
            TakenOverError: it is another process's.

        """
        return True

    def remove(self, name: str) -> None:
        """Remove a folder of the run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)


def hold(location: str) -> Kept:
    """The run's folder, to be entered for as long as the run is worked on.

    Raises:
        UserError: on entering: the storage cannot be used, or another process works on the run.

    """
    if is_remote(location):
        return Mirror(open_remote(location), local_folder(location))
    return Kept(local_folder(location))


class Mirror(Kept):
    """The mirror of a run on object storage, while it is run: held by a lease, brought by a thread.

    Entering it fetches what there is; leaving it brings all that is left, and frees the run.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        super().__init__(folder)
        self._remote = remote
        self._lease = Lease(remote)
        self._begun = False
        self._problem: StorageError | None = None
        self._segments: dict[str, Segments] = {}
        self._brought: dict[str, Stamp] = {}
        self._discarded: list[Callable[[], None]] = []
        self._bringing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_bringing, name="storage", daemon=True)

    def __enter__(self) -> Self:
        with ExitStack() as undone:
            try:
                self._lease.take()
                undone.callback(self._lease.give_back)
                with locked(self.folder):
                    journals = fetch(self._remote, self.folder, {STATE, LOG})
                    # an older model than the storage's, perhaps; the run writes another
                    shutil.rmtree(self.folder / BEST, ignore_errors=True)
                    self.folder.mkdir(parents=True, exist_ok=True)
                for name, size in journals.items():
                    self._follow(name, size)
                there = self._remote.files()
                self._brought = {n: stamp for n, stamp, _ in self._files() if there.get(n) == stamp}
            except OSError as error:
                raise unreachable(self._remote.location, error) from error
            undone.pop_all()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None or self._begun:  # else it was refused: what lies here is of before
                self.settle()
        except TakenOverError:
            if kind is None:
                raise
        finally:
            self._end_thread()
            self._lease.give_back()
        if kind is None and self._problem:
            raise StorageError(
                f"{self._problem}. The rest is on this machine alone, in {self.folder}: resume the "
                "run here, and it is brought"
            )

    def check(self) -> None:
        """Look whether the run can go on."""
        self._begun = True
        if self._problem:
            raise self._problem
        super().check()

    def settle(self) -> bool:
        """Bring all there is to the storage, for as long as that may fail."""
        self._end_thread()
        until = time.monotonic() + RETRY_SECONDS
        settled = not self._problem and self._attempt(self._bring_all, until)
        if isinstance(self._problem, TakenOverError):
            raise self._problem
        return settled

    def discard(self, delete: Callable[[], None]) -> None:
        """Delete what the journal names no more, once the one in the storage does not either."""
        self._discarded.append(delete)

    def remove(self, name: str) -> None:
        """Remove a folder of the run, here and there."""
        with self._bringing:
            super().remove(name)
            self._segments.pop(f"{name}/", None)
            self._brought = {k: v for k, v in self._brought.items() if not k.startswith(f"{name}/")}
            try:
                self._lease.check()
                self._remote.delete_folder(name)
            except OSError as error:
                raise unreachable(self._remote.location, error) from error

    # -- the thread's ---------------------------------------------------------------------

    def _end_thread(self) -> None:
        self._ended.set()
        self._thread.join()

    def _keep_bringing(self) -> None:
        due = time.monotonic() + FILES_SECONDS
        while not self._ended.wait(SECONDS_BEHIND):
            bring = self._bring_events
            if time.monotonic() >= due:
                bring, due = self._bring_all, time.monotonic() + FILES_SECONDS
            if not self._attempt(bring, until=time.monotonic() + RETRY_SECONDS):
                return

    def _attempt(self, bring: Callable[[], None], until: float) -> bool:
        """Bring, again and again where it fails, until it is done, or there is no more hope."""
        while True:
            try:
                bring()
            except StorageError as problem:
                self._problem = problem
                return False
            except Exception as error:  # noqa: BLE001 - the thread must not die in silence
                logger.warning("%s: %s", self._remote.location, error)
                if time.monotonic() > until:
                    self._problem = StorageError(
                        f"{unreachable(self._remote.location, error)}. It was tried for "
                        f"{RETRY_SECONDS:.0f} s"
                    )
                    return False
                time.sleep(SECONDS_BEHIND)
            else:
                return True

    def _bring_events(self) -> None:
        with self._bringing:
            discarded = len(self._discarded)
            for name in ("", "final/"):
                self._lease.check()
                self._follow(name)
                if name in self._segments:
                    self._segments[name].bring()
            for _ in range(discarded):
                self._lease.check()
                with suppress(FileNotFoundError):  # it is gone already
                    self._discarded[0]()
                del self._discarded[0]

    def _bring_all(self) -> None:
        self._bring_events()
        with self._bringing:
            changed = self._changed()
            if any(name.startswith(f"{BEST}/") for name in changed):
                self._lease.check()
                self._remote.delete(_MARKER)
                self._brought.pop(_MARKER, None)
                changed = self._changed()
                there = {name for name, _, _ in self._files()}
                self._remote.delete(*set(self._remote.files(BEST)) - there)
            for name in sorted(changed, key=lambda name: name == _MARKER):
                stamp, path = changed[name]
                try:
                    content = path.read_bytes()
                except FileNotFoundError:  # replaced since
                    continue
                self._lease.check()
                self._remote.write(name, content)
                self._brought[name] = stamp

    def _follow(self, below: str, brought: int = 0) -> None:
        """Bring the journal ``below`` the run's folder from now on, if it is there.

        ``brought``: bytes of it that are there already.
        """
        journal = self.folder / below / JOURNAL
        if below not in self._segments and journal.exists():
            folder = f"{below}{SEGMENTS}"
            self._segments[below] = Segments(self._remote, journal, folder, brought)

    def _changed(self) -> dict[str, tuple[Stamp, Path]]:
        """What the storage does not have as it is here."""
        return {
            name: (stamp, path)
            for name, stamp, path in self._files()
            if self._brought.get(name) != stamp
        }

    def _files(self) -> Iterator[tuple[str, Stamp, Path]]:
        """What is to be brought, beside journals: relative path, stamp, path."""
        for top, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(top) / name
                if name.startswith(".") or name == JOURNAL or path.is_symlink():
                    continue
                with suppress(FileNotFoundError):
                    yield path.relative_to(self.folder).as_posix(), stamp_of(path), path
