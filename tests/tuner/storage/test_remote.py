"""Storage that is not an object store: what is half written there, and what is there already."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from tuner.search.journal import JOURNAL, Journal
from tuner.storage import drop_checkpoints, fetched, hold
from tuner.storage.remote import Remote, open_remote


class Share(LocalFileSystem):  # type: ignore[misc]
    """Folders and files of a host, as sftp's or HDFS's are; nothing is moved onto a file."""

    protocol = ("share",)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("share://")))

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        if Path(path2).exists():
            raise FileExistsError(path2)
        Path(path1).rename(path2)


fsspec.register_implementation("share", Share, clobber=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "share/run"


@pytest.fixture
def remote(folder: Path) -> Remote:
    return open_remote(f"share://{folder}")


def test_a_file_takes_the_place_of_another(remote: Remote, folder: Path) -> None:
    for content in (b"one", b"two"):
        remote.write("best/config.yaml", content)
        assert remote.read("best/config.yaml") == content
    assert [path.name for path in folder.rglob("*")] == ["best", "config.yaml"]


def test_a_run_goes_on_though_files_were_left_half_written(
    remote: Remote, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with hold(remote.location) as held, Journal(held.folder / JOURNAL, held.check) as journal:
        journal.append({"event": "session", "time": 1})
    for name in ("journal/000000000000.jsonl.0a1b2c3d.partial", "trials.csv.0a1b2c3d.partial"):
        (folder / name).write_text("half")
    (folder / "journal/notes.txt").write_text("of the user's")
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))

    mirror = fetched(remote.location)

    assert [path.name for path in mirror.iterdir()] == [JOURNAL]
    with hold(remote.location) as held, Journal(held.folder / JOURNAL, held.check) as journal:
        assert journal.events == [{"event": "session", "time": 1}]
        journal.append({"event": "session", "time": 2})
    assert (fetched(remote.location) / JOURNAL).read_bytes().count(b"\n") == 2


def test_checkpoints_that_nothing_names_are_deleted(remote: Remote, folder: Path) -> None:
    for number in (1, 2):
        remote.write(f"trial_0000/checkpoint_{number}/state.pt", b"much")
    drop_checkpoints(remote.location, spare=["/elsewhere/run/trial_0000/checkpoint_2"])
    assert [path.name for path in folder.glob("*/*")] == ["checkpoint_2"]


@pytest.mark.parametrize(
    "use",
    [
        lambda remote: remote.files(),
        lambda remote: remote.folders(),
        lambda remote: remote.read("x"),
        lambda remote: remote.write("x", b""),
        lambda remote: remote.delete("x"),
        lambda remote: remote.delete_folder("x"),
    ],
)
def test_what_a_package_raises_of_its_own_is_an_os_error(
    remote: Remote, use: Callable[[Remote], object]
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("HttpError 503")

    with pytest.raises(OSError, match="RuntimeError: HttpError 503"):
        use(dataclasses.replace(remote, filesystem=Broken()))
