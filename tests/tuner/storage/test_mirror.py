"""A run's folder and its mirror, on a file system in memory that only fsspec knows."""

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import FileInfo, FileType

from tuner.errors import StorageError, TakenOverError, UserError
from tuner.search.journal import JOURNAL, Journal
from tuner.storage import BEST, EVENTS, fetch_model, fetched, hold, is_held, mirror, run_names
from tuner.storage.lease import LEASES
from tuner.storage.mirror import Mirror
from tuner.storage.remote import Remote, open_remote


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    monkeypatch.setattr(mirror, "SECONDS_BEHIND", 0.05)


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


def test_a_driver_that_lost_its_run_neither_writes_nor_deletes_anything_of_it(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        raise TakenOverError("the run was taken over")

    deleted = []
    held = opened(location).__enter__()
    monkeypatch.setattr(held._lease, "check", lose)
    with events(held) as journal:
        journal.append({"event": "session", "time": 1})
    held.discard(lambda: deleted.append(1))
    write(held.folder, "best/config.yaml", "trainable: x")
    held._thread.join(20)
    with pytest.raises(TakenOverError):
        held.check()
    with pytest.raises(TakenOverError):
        held.settle()
    with pytest.raises(TakenOverError):
        held.__exit__(None, None, None)
    assert [name for name in open_remote(location).files() if not name.startswith(LEASES)] == []
    assert not deleted


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


@pytest.mark.parametrize("error", [ValueError("of a package"), KeyError("x"), OSError("no")])
def test_whatever_fails_in_the_thread_is_told(
    location: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.2)
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
        held.discard(fail)  # type: ignore[arg-type]
        held._thread.join(20)
        assert not held._thread.is_alive()
        with pytest.raises(StorageError, match="which cannot be read and written here: ") as told:
            held.check()
        assert str(error) in str(told.value)
        monkeypatch.setattr(held, "_problem", None)
        held._discarded.clear()


def test_what_is_gone_already_need_not_be_deleted(location: str) -> None:
    def fail() -> None:
        raise FileNotFoundError("checkpoint_000001")

    deleted = []
    with opened(location) as held:
        held.discard(fail)
        held.discard(lambda: deleted.append(1))
    assert deleted == [1]


def test_where_the_rest_is_is_told_if_the_storage_fails_at_the_end(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.1)
    held = opened(location).__enter__()
    break_off(monkeypatch)
    write(held.folder, "trials.csv", "a,b")
    assert not held.settle()
    with pytest.raises(StorageError, match=f"on this machine alone, in {held.folder}: resume"):
        held.__exit__(None, None, None)


def test_a_model_is_never_without_its_description_once_it_is_brought(location: str) -> None:
    remote = open_remote(location)
    with opened(location) as held:
        write(held.folder, "best/config.yaml", "trainable: x")
        write(held.folder, "best/metrics.json", "{}")
        held._bring_all()
        write(held.folder, "best/metrics.json", '{"test": 1}')
        held._bring_all()
        assert remote.read("best/config.yaml") == b"trainable: x"
        assert remote.read("best/metrics.json") == b'{"test": 1}'


def test_a_model_of_this_machine_takes_not_the_place_of_a_newer_one(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for home in ("here", "elsewhere", "here"):
        monkeypatch.setenv("HOME", str(tmp_path / home))
        with opened(location) as held, events(held) as journal:
            journal.append({"event": "session", "time": 1})
            if len(journal.events) < 2:
                write(held.folder, "best/config.yaml", f"of session {len(journal.events)}")
    assert open_remote(location).read("best/config.yaml") == b"of session 1"


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_was_refused_brings_nothing(
    location: str, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setattr(mirror, "FILES_SECONDS", 60.0)
    held = opened(location).__enter__()
    write(held.folder, "trials.csv", "a,b")
    if begun:
        held.check()
    held.__exit__(UserError, UserError("exists already"), None)
    assert not is_held(location)
    assert open_remote(location).read("trials.csv") == (b"a,b" if begun else None)


def test_what_arrives_of_a_former_driver_does_not_shift_where_this_one_goes_on(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
    remote, name = open_remote(location), "journal/000000000000.jsonl"
    brought = remote.read(name) or b""
    fetch = mirror.fetch

    def fetch_before_it_arrives(*arguments: Any) -> Any:
        sizes = fetch(*arguments)
        remote.write(name, brought + b'{"event":"late","time":2}\n')
        return sizes

    monkeypatch.setattr(mirror, "fetch", fetch_before_it_arrives)
    elsewhere(monkeypatch, tmp_path)
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 3})
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "third"))
    journal_there = (fetched(location) / JOURNAL).read_text()
    assert [json.loads(line)["time"] for line in journal_there.splitlines()] == [1, 3]


def test_a_name_that_leads_out_of_the_run_is_not_written(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with opened(location) as held, events(held) as journal:
        journal.append({"event": "session", "time": 1})
    elsewhere(monkeypatch, tmp_path)
    remote = open_remote(location)
    files, folder = remote.filesystem.get_file_info, FileType.Directory

    def with_others(asked: Any) -> Any:
        names = ["a/../../../out.csv", "../out.csv", "/out.csv", "a//out.csv", "./out.csv"]
        kinds = [(name, FileType.File) for name in names] + [("..", folder), ("in", folder)]
        more = [FileInfo(f"{remote.path}/{name}", kind, size=1) for name, kind in kinds]
        return files(asked) + more

    fake = SimpleNamespace(get_file_info=with_others)
    found = dataclasses.replace(remote, filesystem=fake)

    assert set(found.files()) == set(remote.files())
    assert [name for name in found.folders() if name not in remote.folders()] == ["in"]


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
