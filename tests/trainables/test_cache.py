import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trainables import cache as cache_module
from trainables.cache import DiskCache, new_array


@pytest.fixture
def cache(tmp_path: Path):
    """A cache of 1,000 bytes."""
    return DiskCache(tmp_path / "cache", 1000)


def put(cache: DiskCache, name: str, size: int, spare: tuple[str, ...] = ()) -> Path | None:
    """Build an entry of one file of ``size`` bytes; None: there was no room."""
    with cache.lock(name):
        partial = cache.make(name, size, spare)
        if partial is None:
            return None
        (partial / "file").write_bytes(b"x" * size)
        return cache.keep(name)


def names(cache: DiskCache):
    return sorted(p.name for p in cache.directory.iterdir() if p.is_dir())


def used(cache: DiskCache, name: str, seconds_ago: float):
    then = time.time() - seconds_ago
    os.utime(cache.directory / name / ".tuner-cache", (then, then))


def test_an_entry_is_there_when_it_is_kept_and_not_before(cache: DiskCache):
    with cache.lock("a"):
        assert cache.get("a") is None
        partial = cache.make("a", 10)
        assert partial is not None
        (partial / "file").write_bytes(b"0123456789")
        assert cache.get("a") is None
        kept = cache.keep("a")

    assert cache.get("a") == kept
    assert (kept / "file").read_bytes() == b"0123456789"


def test_the_least_recently_used_makes_room(cache: DiskCache):
    for name, seconds_ago in (("a", 30), ("b", 20), ("c", 10)):
        put(cache, name, 300)
        used(cache, name, seconds_ago)
    cache.get("a")

    put(cache, "d", 300)

    assert names(cache) == ["a", "c", "d"]


def test_what_is_spared_stays_though_it_was_used_longest_ago(cache: DiskCache):
    put(cache, "a", 500)
    used(cache, "a", 20)
    put(cache, "b", 500)

    put(cache, "c", 400, spare=("a",))

    assert names(cache) == ["a", "c"]


def test_nothing_goes_for_what_would_not_fit_even_so(cache: DiskCache):
    put(cache, "a", 500)
    put(cache, "b", 300)

    assert put(cache, "c", 1001) is None
    assert put(cache, "c", 600, spare=("a",)) is None

    assert names(cache) == ["a", "b"]


def test_an_entry_counts_with_its_real_size_once_it_is_kept(cache: DiskCache):
    with cache.lock("a"):
        partial = cache.make("a", 900)
        assert partial is not None
        (partial / "file").write_bytes(b"x" * 100)
        assert put(cache, "b", 200) is None  # 900 are promised
        cache.keep("a")

    put(cache, "b", 800)

    assert names(cache) == ["a", "b"]


def test_a_full_disk_makes_entries_go_and_then_refuses(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    put(cache, "a", 100)
    left = [150, 250]  # before and after the entry goes

    def disk_usage(_directory: Path):
        return shutil._ntuple_diskusage(0, 0, left[0 if "a" in names(cache) else 1])

    monkeypatch.setattr(cache_module.shutil, "disk_usage", disk_usage)

    assert put(cache, "b", 300) is None  # all entries would not be enough
    assert names(cache) == ["a"]
    assert put(cache, "b", 240) is not None
    assert names(cache) == ["b"]


def test_an_entry_that_is_deleted_stays_whole_for_who_has_it_mapped(cache: DiskCache):
    with cache.lock("a"):
        partial = cache.make("a", 800)
        assert partial is not None
        new_array(partial / "a.npy", np.uint8, (600,))[:] = 7
        mapped = np.load(cache.keep("a") / "a.npy", mmap_mode="r")

    put(cache, "b", 900)

    assert names(cache) == ["b"]
    assert (mapped == 7).all()


def test_an_entry_is_not_deleted_while_its_lock_is_held(cache: DiskCache):
    put(cache, "a", 800)

    with cache.lock("a"):
        assert put(cache, "b", 900) is None

    assert names(cache) == ["a"]
    assert put(cache, "b", 900) is not None


def test_a_builder_that_is_killed_leaves_no_entry_and_its_bytes_are_taken_back(cache: DiskCache):
    code = f"""
import os, signal
from pathlib import Path
from trainables.cache import DiskCache
cache = DiskCache(Path({str(cache.directory)!r}), 1000)
with cache.lock("a"):
    (cache.make("a", 900) / "file").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert names(cache) == ["a.partial"]

    assert cache.get("a") is None
    assert put(cache, "b", 900) is not None
    assert names(cache) == ["b"]


def test_a_partial_folder_is_made_afresh(cache: DiskCache):
    with cache.lock("a"):
        partial = cache.make("a", 10)
        assert partial is not None
        (partial / "sub").mkdir()
        (partial / "sub" / "file").write_bytes(b"half")

        assert cache.make("a", 10) == partial
        assert [p.name for p in partial.iterdir()] == [".tuner-cache"]


def test_a_deletion_that_is_cut_short_leaves_no_entry(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    put(cache, "a", 800)

    def cut_short(_path: Path, **_more: object):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut_short)
        with pytest.raises(KeyboardInterrupt):
            put(cache, "b", 900)

    assert cache.get("a") is None
    assert put(cache, "b", 900) is not None
    assert names(cache) == ["b"]


def test_what_is_not_ours_is_left_alone_and_not_counted(cache: DiskCache):
    theirs = cache.directory / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "file").write_bytes(b"x" * 5000)
    (cache.directory / "note.txt").write_bytes(b"x" * 5000)
    (cache.directory / "download.partial").mkdir()

    put(cache, "a", 900)
    put(cache, "b", 900)

    assert names(cache) == ["b", "download.partial", "theirs"]
    assert (theirs / "file").stat().st_size == 5000
    assert (cache.directory / "note.txt").exists()
    assert cache.get("theirs") is None


def test_a_cache_of_no_bytes_holds_nothing(cache: DiskCache):
    put(cache, "a", 10)
    none = DiskCache(cache.directory, 0)

    assert none.get("a") is None
    assert put(none, "b", 1) is None


def test_processes_that_build_at_once_keep_to_the_bound(cache: DiskCache):
    code = f"""
import sys
from pathlib import Path
from trainables.cache import DiskCache
cache = DiskCache(Path({str(cache.directory)!r}), 1000)
for i in range(10):
    name = sys.argv[1] + str(i)
    with cache.lock(name):
        partial = cache.make(name, 300)
        if partial is None:
            continue
        (partial / "file").write_bytes(b"x" * 300)
        cache.keep(name)
    with cache._changes():
        sizes = [path.stat().st_size for path in cache.directory.glob("*/file")]
        assert sum(sizes) <= 1000, sizes
"""
    builders = [subprocess.Popen([sys.executable, "-c", code, letter]) for letter in "abc"]

    assert [builder.wait() for builder in builders] == [0, 0, 0]
    assert len(names(cache)) == 3


def test_a_new_array_takes_its_place_on_the_disk_at_once(tmp_path: Path):
    array = new_array(tmp_path / "a.npy", np.uint8, (1000, 1000))

    assert array.shape == (1000, 1000)
    assert not array.any()
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000


def test_a_full_disk_is_an_error_and_not_a_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_descriptor: int, _offset: int, _length: int):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(OSError, match="No space left"):
        new_array(tmp_path / "a.npy", np.uint8, (10,))


def test_a_folder_that_cannot_be_made_is_named_with_its_key() -> None:
    with pytest.raises(FileNotFoundError, match=r"cache\.dir is '/proc/none', .* --set "):
        DiskCache(Path("/proc/none"), 1000).lock("x")
