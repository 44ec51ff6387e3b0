"""Who works on a run on object storage: one process at a time.

Each process has an object of its own in ``.lease/``, named by a number above all that were there.
Whoever sees a higher one has lost the run, and the highest stays for ever: what arrives late takes
nothing back. To take the run, as to renew, is to write first and to look then: of two that do so at
the same time, one at least sees the other.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

from tuner.errors import TakenOverError, UserError
from tuner.storage.fetching import is_run_here
from tuner.storage.places import is_remote, local_folder
from tuner.storage.remote import Remote, open_remote, unreachable

logger = logging.getLogger(__name__)

LEASES = ".lease"
"""The folder, in the run's."""
LEASE_SECONDS = 5.0
"""After so long without renewal, whoever held the run is taken for dead."""
RENEWAL_SECONDS = 1.0
"""How often it is renewed."""


class Lease:
    """Says who works on a run; once taken, a thread renews it until it is given back."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._name = ""
        self._until = 0.0
        """Before that, nobody else takes it; ``time.monotonic()``."""
        self._problem: TakenOverError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    def take(self) -> None:
        """Take it, if nobody holds it or its holder has not renewed it for a while.

        Raises:
            UserError: somebody does.

        """
        before = _leases(self._remote)
        deadline = time.monotonic() + LEASE_SECONDS
        while any(map(_is_live, before.values())) and time.monotonic() < deadline:
            time.sleep(0.25)
            before = self._unchanged(before)
        number = max(map(_number, self._remote.files(LEASES)), default=0) + 1
        self._name = f"{LEASES}/{number:06d}-{uuid.uuid4().hex[:8]}.json"
        try:
            self._until = self._write()
            self._unchanged(before)
        except Exception:
            with suppress(OSError):
                self._remote.delete(self._name)
            raise
        self._remote.delete(*before)
        self._thread.start()

    def check(self) -> None:
        """Look whether the run is still this process's, before something of it is written.

        Raises:
            TakenOverError: it is another's.
            TimeoutError: it may be, for the lease could not be renewed. That may yet succeed.

        """
        if self._problem:
            raise self._problem
        if time.monotonic() > self._until:
            raise TimeoutError(f"the lease could not be renewed for {LEASE_SECONDS:g} s")

    def give_back(self) -> None:
        """Free the run."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            self._write(renewed=0)

    def _keep_renewing(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS):
            try:
                self._renew()
            except TakenOverError as problem:
                self._problem = problem
                return
            except Exception as error:  # noqa: BLE001 - until it is another's, it is tried again
                logger.warning("%s: the lease: %s", self._remote.location, error)

    def _renew(self) -> None:
        until = self._write()
        latest = max(self._remote.files(LEASES), key=_number)
        if _number(latest) > _number(self._name):
            by = _leases(self._remote).get(latest)
            raise TakenOverError(
                f"{self._remote.location} was taken over by another process"
                f"{f', {_holder(by)}' if by else ''}, since this one had not renewed its lease "
                "for a while"
            )
        self._until = until

    def _unchanged(self, before: dict[str, Any]) -> dict[str, Any]:
        """The others' leases as they are now, which is as they were ``before``."""
        now = {name: lease for name, lease in _leases(self._remote).items() if name != self._name}
        for name, lease in now.items():
            if _is_live(lease) and lease != before.get(name):
                raise UserError(
                    f"{self._remote.location} is being run by another process, {_holder(lease)}; "
                    "let it finish, or stop it first (Ctrl-C in its terminal)"
                )
        return now

    def _write(self, renewed: float | None = None) -> float:
        """Write its object; returns until when nobody will take it for that of a dead process."""
        until = time.monotonic() + LEASE_SECONDS
        facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed": time.time() if renewed is None else renewed,
        }
        self._remote.write(self._name, json.dumps(facts).encode())
        return until


def is_held(location: str) -> bool:
    """Whether a process works on the run, as far as this machine's clock can tell."""
    if is_run_here(local_folder(location)):
        return True
    if not is_remote(location):
        return False
    remote = open_remote(location)
    try:
        leases = _leases(remote).values()
    except OSError as error:
        raise unreachable(location, error) from error
    return any(time.time() - lease["renewed"] < 3 * LEASE_SECONDS for lease in leases)


def _leases(remote: Remote) -> dict[str, Any]:
    """Every lease that is there: its object's name, and what it says. Other objects do not count.

    What it says: the process, and when it was renewed, in seconds since 1970; 0: it was given back.
    """
    found = {name: _parsed(remote.read(name)) for name in remote.files(LEASES) if _number(name)}
    return {name: lease for name, lease in found.items() if lease}


def _number(name: str) -> int:
    """How many leases came before, and one; 0: it is the name of none."""
    number = name.removeprefix(f"{LEASES}/").partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _is_live(lease: dict[str, Any]) -> bool:
    return bool(lease["renewed"])


def _holder(lease: dict[str, Any]) -> str:
    return f"{lease['pid']} on {lease['host']}"


def _parsed(lease: bytes | None) -> dict[str, Any] | None:
    """What a lease says; None: there is none, or it is none of ours."""
    try:
        found = json.loads(lease or b"")
    except ValueError:
        return None
    whole = isinstance(found, dict) and {"host", "pid", "renewed"} <= set(found)
    return found if whole else None
