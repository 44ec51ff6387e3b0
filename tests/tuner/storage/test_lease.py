"""One process at a time works on a run, whatever arrives late."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.errors import TakenOverError, UserError
from tuner.storage import is_held, lease
from tuner.storage.lease import LEASE_SECONDS, LEASES, Lease
from tuner.storage.remote import Remote, open_remote

SECONDS = 2.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(lease, "LEASE_SECONDS", SECONDS)
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.1)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = open_remote(f"memory://lease{tmp_path}/run")
    yield remote
    remote.delete(*remote.files())


@pytest.fixture
def first(remote: Remote) -> Iterator[Lease]:
    first = Lease(remote)
    first.take()
    yield first
    first.give_back()


def suspend(held: Lease) -> None:
    """Its process hangs: nothing is renewed."""
    held._ended.set()
    held._thread.join()


def test_a_run_can_be_taken_over_within_seconds() -> None:
    assert LEASE_SECONDS <= 5


def test_a_run_that_is_worked_on_is_refused_to_others(remote: Remote, first: Lease) -> None:
    with pytest.raises(UserError, match="run is being run by another process, "):
        Lease(remote).take()
    time.sleep(SECONDS)
    first.check()
    assert is_held(remote.location)


def test_a_run_that_was_given_back_is_free_at_once(remote: Remote, first: Lease) -> None:
    first.give_back()
    assert not is_held(remote.location)
    second, started = Lease(remote), time.monotonic()
    second.take()
    second.give_back()
    assert time.monotonic() - started < SECONDS
    assert len(remote.files(LEASES)) == 1


def test_a_dead_processs_run_is_taken_over_and_it_stops_if_it_was_not_dead(
    remote: Remote, first: Lease
) -> None:
    suspend(first)
    second = Lease(remote)
    second.take()

    with pytest.raises(TimeoutError, match="the lease could not be renewed for 2 s"):
        first.check()
    with pytest.raises(TakenOverError, match=r"run was taken over by another process, \d+ on "):
        first._renew()
    with pytest.raises(TimeoutError):
        first.check()
    time.sleep(0.5)  # what it wrote as it was too late takes nothing back
    second.check()
    second.give_back()
    with pytest.raises(TakenOverError, match="taken over by another process"):
        first._renew()


def test_one_that_nobody_took_over_goes_on_after_an_outage(
    remote: Remote, first: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("of a package of fsspec")

    with monkeypatch.context() as outage:
        outage.setattr(Remote, "write", refuse)
        time.sleep(SECONDS + 0.5)
        with pytest.raises(TimeoutError):
            first.check()
    for _ in range(100):
        if time.monotonic() < first._until:
            break
        time.sleep(0.1)
    first.check()
    assert len(remote.files(LEASES)) == 1


def test_one_that_comes_back_as_another_is_about_to_take_it_keeps_it(
    remote: Remote, first: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has looked for long enough, and has written; then it looks again."""
    suspend(first)
    second, write = Lease(remote), Lease._write

    def write_late(self: Lease, renewed: float | None = None) -> float:
        write(first)
        return write(self, renewed)

    monkeypatch.setattr(Lease, "_write", write_late)
    with pytest.raises(UserError, match="run is being run by another process"):
        second.take()
    monkeypatch.undo()
    assert list(remote.files(LEASES)) == [first._name]
    first._renew()
    first.check()


@pytest.mark.parametrize("name", ["000003-x.json", "what", ".hidden"])
@pytest.mark.parametrize("content", [b"what is this", json.dumps({"pid": 1}).encode()])
def test_what_is_not_ours_to_read_holds_nobody_off(
    remote: Remote, name: str, content: bytes
) -> None:
    remote.write(f"{LEASES}/{name}", content)
    held, started = Lease(remote), time.monotonic()
    held.take()
    assert time.monotonic() - started < SECONDS
    held._renew()
    held.give_back()
