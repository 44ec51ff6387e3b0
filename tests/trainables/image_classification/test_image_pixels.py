import errno
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_files import write_digits
from PIL import Image

from trainables import cache as cache_module
from trainables.cache import DiskCache
from trainables.image_classification import pixels
from trainables.image_classification.pixels import StoredPixels, StreamedPixels, open_pixels
from trainables.image_classification.sources import Source, open_source

torch.set_num_threads(1)


@pytest.fixture
def source(tmp_path: Path):
    """Twelve digits, 8 x 8."""
    return open_source(str(write_digits(tmp_path / "d")))


@pytest.fixture
def cache(tmp_path: Path):
    return DiskCache(tmp_path / "cache", 10**6)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch):
    """One item for each time that all images were decoded."""
    calls: list[None] = []
    decode = pixels._decode
    monkeypatch.setattr(pixels, "_decode", lambda *a: (calls.append(None), decode(*a))[1])
    return calls


def test_those_who_come_together_decode_once(source: Source, cache: DiskCache, decoded: list[None]):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_pixels(source, 16, cache, 0), range(4)))

    assert len(decoded) == 1
    first, *others = [next(each.batches([np.arange(12)])) for each in found]
    assert all(torch.equal(first, other) for other in others)


def test_a_build_that_was_cut_short_is_done_again(
    source: Source, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    def cut_short(_source: object, _size: int, file: Path):
        np.load(file, mmap_mode="r+")[:] = 7
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "_decode", cut_short)
        with pytest.raises(KeyboardInterrupt):
            open_pixels(source, 16, cache, 0)

    found = open_pixels(source, 16, cache, 0)
    assert isinstance(found, StoredPixels)
    assert not (found.images == 7).all(axis=(1, 2, 3)).any()


def test_stored_images_are_read_only(source: Source, cache: DiskCache):
    found = open_pixels(source, 16, cache, 0)
    assert isinstance(found, StoredPixels)

    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0
    next(found.batches([np.array([0])]))[:] = 0  # a batch is a copy
    assert found.images[0].any()


def test_two_sizes_share_no_entry(source: Source, cache: DiskCache):
    small, large = open_pixels(source, 16, cache, 0), open_pixels(source, 20, cache, 0)

    assert small.key != large.key
    assert next(large.batches([np.array([3])])).shape == (1, 3, 20, 20)


def test_what_does_not_fit_into_the_cache_is_streamed_with_a_warning(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    exactly = 12 * 16 * 16 * 3

    assert isinstance(open_pixels(source, 16, DiskCache(tmp_path / "c", exactly), 0), StoredPixels)
    assert not caplog.messages
    found = open_pixels(source, 16, DiskCache(tmp_path / "d", exactly - 1), 0)

    assert isinstance(found, StreamedPixels)
    assert found.entry is None
    (warning,) = caplog.messages
    assert "its 12 images are decoded anew every epoch" in warning


def test_images_that_the_disk_has_no_room_for_are_streamed(
    source: Source, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    free = shutil._ntuple_diskusage(10, 0, 10)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: free)

    assert isinstance(open_pixels(source, 16, cache, 0), StreamedPixels)


def test_a_disk_that_fills_up_meanwhile_makes_them_streamed_and_nothing_stays(
    source: Source, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    def full(_descriptor: int, _offset: int, _length: int):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert isinstance(open_pixels(source, 16, cache, 0), StreamedPixels)
    assert not list(cache.directory.glob("images-*/*"))


def test_streamed_images_are_looked_at_once_for_what_is_no_image(
    source: Source, tmp_path: Path, decoded: list[None]
):
    small = DiskCache(tmp_path / "cache", 1000)
    (tmp_path / "d" / "0" / "2.png").write_bytes(b"")

    first, again = (open_pixels(source, 16, small, 0) for _ in range(2))

    assert first.corrupt == again.corrupt == {2: "of no known image format"}
    assert len(decoded) == 1


def test_a_file_that_may_not_be_read_is_not_called_corrupt(source: Source, cache: DiskCache):
    Path(source.data, "0", "3.png").unlink()  # after the folder was looked at

    with pytest.raises(ValueError, match=r"of which .*3\.png cannot be read \(No such file"):
        open_pixels(source, 16, cache, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_while_streaming_is_named(workers: int, source: Source, tmp_path: Path):
    found = open_pixels(source, 16, DiskCache(tmp_path / "cache", 0), workers)
    Path(source.data, "0", "3.png").unlink()
    batches = found.batches([np.array([0, 1]), np.array([2, 3])])

    next(batches)
    with pytest.raises(ValueError, match=r"of which 0/3\.png \(.*No such file") as refusal:
        next(batches)
    assert "\n" not in str(refusal.value)


def test_every_odd_file_is_handled_or_refused_by_name(tmp_path: Path):
    folder = write_digits(tmp_path / "d", count=2)
    noise = Image.effect_noise((40, 30), 50)
    noise.convert("RGBA").save(folder / "0" / "rgba.png")
    noise.convert("CMYK").save(folder / "0" / "cmyk.jpg")
    noise.convert("RGB").quantize(8).save(folder / "0" / "palette.gif")
    noise.save(folder / "0" / "film.gif", save_all=True, append_images=[noise.rotate(90)])
    Image.fromarray(np.full((9, 9), 60_000, np.uint16)).save(folder / "0" / "deep.png")
    noise.save(folder / "0" / "cut.jpg")
    content = (folder / "0" / "cut.jpg").read_bytes()
    (folder / "0" / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "0" / "empty.jpg").write_bytes(b"")
    (folder / "0" / "page.jpg").write_text("<html>not found</html>")
    source = open_source(str(folder))

    found = open_pixels(source, 16, DiskCache(tmp_path / "cache", 10**6), 0)

    refused = {source.names[row]: reason for row, reason in found.corrupt.items()}
    assert refused.keys() == {"0/cut.jpg", "0/empty.jpg", "0/page.jpg"}
    assert json.loads((tmp_path / "cache" / str(found.entry) / "corrupt.json").read_text())


def test_a_failure_does_not_wait_for_all_other_images(
    tmp_path: Path, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
):
    source = open_source(str(write_digits(tmp_path / "many", count=100)))
    monkeypatch.setattr(pixels, "_CHUNK", 1)
    seen = []

    def to_square(image: Image.Image, _size: int):
        seen.append(image)
        raise OSError(errno.EIO, "Input/output error", "a.png")

    monkeypatch.setattr(pixels, "to_square", to_square)

    with pytest.raises(ValueError, match=r"a\.png cannot be read \(Input/output error\)"):
        open_pixels(source, 16, cache, 0)
    assert len(seen) < 150


def test_decoding_is_announced(source: Source, cache: DiskCache, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        open_pixels(source, 16, cache, 0)
        open_pixels(source, 16, cache, 0)

    (message,) = caplog.messages
    assert message.endswith("decoding 12 images, once")
