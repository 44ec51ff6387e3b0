"""Who works on a run on object storage: one process at a time."""

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import StorageError, UserError
from tuner.storage.fetching import is_run_here
from tuner.storage.places import is_remote, local_folder
from tuner.storage.remote import Remote, open_remote, unreachable

LEASE = ".lease.json"
LEASE_SECONDS = 5.0
"""After so long without renewal, whoever held the run is taken for dead."""


@dataclass
class Lease:
    """An object that says who works on a run."""

    remote: Remote
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def take(self) -> None:
        """Take it, if nobody holds it or its holder has not renewed it for a while.

        Raises:
            UserError: somebody does.

        """
        before = self._read()
        deadline = time.monotonic() + LEASE_SECONDS
        while before and time.monotonic() < deadline:
            time.sleep(0.25)
            now = self._read()
            if now and now != before:
                raise UserError(
                    f"{self.remote.location} is being run by another process, {now['pid']} on "
                    f"{now['host']}; let it finish, or stop it first (Ctrl-C in its terminal)"
                )
            before = now
        self._write()

    def renew(self) -> None:
        """Say that the run is still worked on.

        Raises:
            StorageError: somebody else has taken it over.

        """
        now = self._read()
        if now and now["token"] != self.token:
            raise StorageError(
                f"{self.remote.location} was taken over by another process, {now['pid']} on "
                f"{now['host']}, since this one had not renewed its lease for a while"
            )
        self._write()

    def give_back(self) -> None:
        """Free the run."""
        now = self._read()
        if now and now["token"] == self.token:
            self.remote.delete(LEASE)

    def _read(self) -> dict[str, Any] | None:
        return _parsed(self.remote.read(LEASE))

    def _write(self) -> None:
        facts = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed": time.time(),
        }
        self.remote.write(LEASE, json.dumps(facts).encode())


def is_held(location: str) -> bool:
    """Whether a process works on the run, as far as this machine's clock can tell."""
    if is_run_here(local_folder(location)):
        return True
    if not is_remote(location):
        return False
    remote = open_remote(location)
    try:
        content = remote.read(LEASE)
    except OSError as error:
        raise unreachable(location, error) from error
    lease = _parsed(content)
    return lease is not None and time.time() - lease["renewed"] < 3 * LEASE_SECONDS


def _parsed(lease: bytes | None) -> dict[str, Any] | None:
    """What a lease says; None: there is none, or it is none of ours."""
    try:
        found = json.loads(lease or b"")
    except ValueError:
        return None
    whole = isinstance(found, dict) and {"token", "host", "pid", "renewed"} <= set(found)
    return found if whole else None
