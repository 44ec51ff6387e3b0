"""A run's folder and its mirror, on a file system in memory that only fsspec knows."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuner.errors import StorageError, UserError
from tuner.search.journal import JOURNAL, Journal
from tuner.storage import BEST, EVENTS, fetch_model, fetched, hold, is_held, mirror, run_names
from tuner.storage.lease import LEASE, LEASE_SECONDS
from tuner.storage.mirror import Mirror
from tuner.storage.remote import Remote, open_remote


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    monkeypatch.setattr(mirror, "SECONDS_BEHIND", 0.05)
    monkeypatch.setattr("tuner.storage.lease.LEASE_SECONDS", 0.6)


@pytest.fixture
def location(tmp_path: Path) -> Iterator[str]:
    location = f"memory://mirror{tmp_path}/run"
    yield location
    remote = open_remote(location)
    remote.delete(*remote.files())


def opened(location: str) -> Mirror:
    held = hold(location)
    assert isinstance(held, Mirror)
    return held


def events(held: Mirror) -> Journal:
    return Journal(held.folder / JOURNAL, held.check)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on, what is fetched goes to another machine, as it were."""
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))


def soon(remote: Remote, name: str) -> bytes:
    for _ in range(100):
        if content := remote.read(name):
            return content
        time.sleep(0.05)
    raise AssertionError(f"{name} did not come")


def test_events_come_while_the_run_goes_on_and_the_rest_when_it_ends(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote = open_remote(location)
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
        assert soon(remote, "journal/000000000000.jsonl") == (held.folder / JOURNAL).read_bytes()
        write(held.folder, "trials.csv", "a,b")
        write(held.folder, "best/config.yaml", "trainable: x")
        write(held.folder, "trial_0000/events.out.tfevents.1", "scalars")
        write(held.folder, ".partial", "no")
        assert is_held(location)
    assert not is_held(location)
    remote.write("trial_0000_2/events.out.tfevents.2", b"of the second attempt")
    remote.write("trial_0000/checkpoint_000001/state.pt", b"much")

    elsewhere(monkeypatch, tmp_path)
    folder = fetched(location)

    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        JOURNAL,
        "trials.csv",
    }
    assert (fetch_model(location) / "config.yaml").read_text() == "trainable: x"
    assert fetch_model(f"{location}/best") == folder / BEST
    fetched(location, EVENTS)
    assert sorted(path.name for path in (folder / "trial_0000").iterdir()) == [
        "events.out.tfevents.1",
        "events.out.tfevents.2",
    ]
    assert run_names(location.removesuffix("/run")) == ["run"]


def test_another_machine_goes_on_where_the_journal_ends(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})

    elsewhere(monkeypatch, tmp_path)
    with opened(location) as held, events(held) as journal:
        assert journal.events == [{"event": "session", "time": 1}]
        journal.append({"event": "session", "time": 2})

    assert len(open_remote(location).files("journal")) == 2
    elsewhere(monkeypatch, tmp_path / "still")
    with opened(location) as held, events(held) as journal:
        assert [event["time"] for event in journal.events] == [1, 2]


def test_a_run_that_is_worked_on_is_refused_to_others(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with opened(location):
        elsewhere(monkeypatch, tmp_path)
        with (
            pytest.raises(UserError, match="run is being run by another process, "),
            opened(location),
        ):
            pass


def test_a_dead_drivers_run_is_taken_over_and_it_stops_if_it_was_not_dead(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = opened(location).__enter__()
    first._ended.set()  # it hangs: nothing is renewed
    first._thread.join()
    elsewhere(monkeypatch, tmp_path)
    started = time.monotonic()
    with opened(location) as second, events(second) as journal:
        assert time.monotonic() - started < 2
        journal.append({"event": "session", "time": 1})
        first._attempt(first._bring_all, until=0)

        with pytest.raises(StorageError, match="run was taken over by another process"):
            first.check()
        second.check()


def test_a_run_can_be_taken_over_within_seconds() -> None:
    assert LEASE_SECONDS <= 5


def test_what_the_journal_names_is_not_deleted_before_the_one_in_the_storage_ceases_to(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = open_remote(location)
    seen = []
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "drop", "time": 1})
        held.discard(lambda: seen.append(soon(remote, "journal/000000000000.jsonl")))
        monkeypatch.undo()
        assert not seen
    assert b'"drop"' in seen[0]


@dataclass
class Outage:
    """The storage takes nothing, until it is over."""

    over: bool = False
    refused: int = 0


def break_off(monkeypatch: pytest.MonkeyPatch) -> Outage:
    outage, write = Outage(), Remote.write

    def refuse(remote: Remote, name: str, content: bytes) -> None:
        if outage.over:
            write(remote, name, content)
            return
        outage.refused += 1
        raise OSError("the bucket is gone")

    monkeypatch.setattr(Remote, "write", refuse)
    return outage


def test_a_storage_that_fails_for_a_moment_is_tried_again(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(location) as held, events(held) as journal:
        outage = break_off(monkeypatch)
        journal.append({"event": "session", "time": 1})
        while outage.refused < 3:
            time.sleep(0.02)
        outage.over = True
        journal.append({"event": "session", "time": 2})
    brought = open_remote(location).read("journal/000000000000.jsonl")
    assert brought == (held.folder / JOURNAL).read_bytes()


def test_a_storage_that_goes_on_failing_ends_the_run(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.3)
    with pytest.raises(StorageError, match=r"the bucket is gone; .* It was tried for 0 s"):
        append_until_refused(location, monkeypatch)


def append_until_refused(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(location) as held, events(held) as journal:
        break_off(monkeypatch)
        while True:
            journal.append({"event": "session", "time": 1})
            time.sleep(0.02)


def test_nothing_of_an_earlier_model_stays_beside_a_new_one(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
        write(held.folder, "best/config.yaml", "one")
        write(held.folder, "best/model.onnx", "of the first")
    fetch_model(location)
    (held.folder / "best/model.onnx").unlink()
    elsewhere(monkeypatch, tmp_path)
    with opened(location) as held:
        write(held.folder, "best/config.yaml", "two")

    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    model = fetch_model(location)
    assert [path.name for path in model.iterdir()] == ["config.yaml"]
    assert (model / "config.yaml").read_text() == "two"


def test_a_folder_that_is_removed_is_removed_there_too(location: str) -> None:
    remote = open_remote(location)
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
        (held.folder / "final").mkdir()
        with Journal(held.folder / "final" / JOURNAL) as final:
            final.append({"event": "session", "fit": 1})
        soon(remote, "final/journal/000000000000.jsonl")
        held.remove("final")
        assert not remote.files("final")
        (held.folder / "final").mkdir()
        with Journal(held.folder / "final" / JOURNAL) as final:
            final.append({"event": "session", "fit": 22})
    assert remote.read("final/journal/000000000000.jsonl") == b'{"event":"session","fit":22}\n'


def test_a_lease_that_is_not_ours_to_read_holds_nobody_off(location: str) -> None:
    remote = open_remote(location)
    remote.write(LEASE, b"what is this")
    with opened(location) as held:
        held.check()


def test_a_disk_without_room_ends_the_run_while_its_state_can_still_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(str(tmp_path)) as held, Journal(tmp_path / JOURNAL, held.check) as journal:
        journal.append({"event": "session", "time": 1})
        monkeypatch.setattr(mirror, "RESERVE_BYTES", 2**60)
        for _ in range(2):
            with pytest.raises(StorageError, match=f"the disk that {tmp_path} is on is full"):
                journal.append({"event": "session", "time": 2})
    assert (tmp_path / JOURNAL).read_text().count("\n") == 1
