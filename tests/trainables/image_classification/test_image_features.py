import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from trainables.cache import DiskCache
from trainables.image_classification import features
from trainables.image_classification.config import Settings
from trainables.image_classification.data import ImageSet, load_data
from trainables.image_classification.features import FeatureSet, FeatureStore
from trainables.task import Context


class Frozen(nn.Module):
    """Three numbers of an image: the mean of each colour."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


class Noise(nn.Module):
    """A transform that draws."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.rand(len(images), 1, 1, 1)


def images_in(folder: Path) -> ImageSet:
    settings = Settings(data="digits", image_size=8, max_images_per_class=20)
    return load_data(settings, folder, 10**9).train


def store(folder: Path, context: dict[str, Any] | None = None, **more: Any) -> FeatureStore:
    settings = Settings(data="digits", weights="default", **more)
    here = Context(cache_dir=folder, **(context or {}))
    return FeatureStore(settings, here, 3, Frozen(), None)


def values(found: FeatureSet | None) -> np.ndarray:
    assert found is not None
    return np.asarray(found._features)


def test_features_are_those_of_each_image_in_its_row(tmp_path: Path) -> None:
    images = images_in(tmp_path)
    found = store(tmp_path).features(images, nn.Identity(), ["a"])
    pixels, classes = images.batch(range(len(images)))

    expected = pixels.float().mean(dim=(2, 3))
    np.testing.assert_allclose(values(found)[0], expected, rtol=1e-6)
    ((rows, targets),) = found.batches([[5, 3, 150]])
    torch.testing.assert_close(rows, expected[[5, 3, 150]])
    assert targets.tolist() == classes[[5, 3, 150]].tolist()


def test_what_was_computed_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_in(tmp_path)
    first = values(store(tmp_path).features(images, Noise(), ["a"], views=2))
    monkeypatch.setattr(features, "_fill", None)  # nothing is computed again
    again = values(store(tmp_path, {"seed": 7}).features(images, Noise(), ["a"], views=2))

    assert first.shape == (2, 200, 3)
    assert not (first[0] == first[1]).any(), "each view has draws of its own"
    np.testing.assert_array_equal(again, first)


def test_the_draws_do_not_depend_on_the_trial(tmp_path: Path) -> None:
    images = images_in(tmp_path)
    torch.manual_seed(1)
    first = values(store(tmp_path / "a").features(images, Noise(), ["a"]))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = values(store(tmp_path / "b").features(images, Noise(), ["a"]))

    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before), "nor do they change what it draws next"


def test_other_weights_pixels_or_stages_are_other_features(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    keys = {
        store(tmp_path)._digest(["a"]),
        store(tmp_path)._digest(["b"]),
        store(tmp_path, image_size=64)._digest(["a"]),
        store(tmp_path, precision="bf16")._digest(["a"]),
        store(tmp_path, backbone="resnet18")._digest(["a"]),
        FeatureStore(Settings(data="x"), Context(), 4, Frozen(), None)._digest(["a"]),
    }
    of_file = Settings(data="digits", weights=str(weights))
    keys.add(FeatureStore(of_file, Context(), 3, Frozen(), None)._digest(["a"]))
    weights.write_bytes(b"two!")
    keys.add(FeatureStore(of_file, Context(), 3, Frozen(), None)._digest(["a"]))

    assert len(keys) == 8
    assert store(tmp_path, learning_rate=0.5)._digest(["a"]) in keys


def test_without_room_there_are_none_and_what_is_in_use_stays(tmp_path: Path) -> None:
    images = images_in(tmp_path)
    held = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    small = store(tmp_path, {"cache_bytes": held + 1000})
    (entry,) = [path.name for path in tmp_path.glob("images-*") if path.is_dir()]
    small = replace(small, in_use=entry)

    assert small.features(images, nn.Identity(), ["a"]) is None
    assert (tmp_path / entry).is_dir()


def test_a_fill_that_was_cut_short_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_in(tmp_path)

    def cut_short(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(features, "_fill", cut_short)
        with pytest.raises(RuntimeError, match="killed"):
            store(tmp_path).features(images, nn.Identity(), ["a"])
    assert values(store(tmp_path).features(images, nn.Identity(), ["a"])).any(axis=2).all()


def test_who_finds_another_trial_at_it_waits_for_it(tmp_path: Path) -> None:
    images = images_in(tmp_path)
    name = f"features-{store(tmp_path)._digest(['a', 1])}"
    cache, released = DiskCache(tmp_path, 10**9), []

    def hold() -> None:
        with cache.lock(name):
            time.sleep(1.0)
            released.append(time.monotonic())

    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.2)
    found = store(tmp_path).features(images, nn.Identity(), ["a"])
    assert found is not None
    assert time.monotonic() > released[0]
    thread.join()


def rank_main(rank: int, folder: Path, hosts: tuple[str, str]) -> None:
    torch.set_num_threads(1)
    socket.gethostname = lambda: hosts[rank]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    chunks: list[int] = []
    compute = FeatureStore._compute
    FeatureStore._compute = lambda self, prepare, images, seed: (  # type: ignore[method-assign]
        chunks.append(len(images)) or compute(self, prepare, images, seed)
    )
    here = {"rank": rank, "world_size": 2}
    found = store(folder, here).features(images_in(folder), Noise(), ["a"], views=2)
    np.save(folder / f"rank{rank}.npy", values(found))
    (folder / f"chunks{rank}").write_text(
        str(sum(n for n in chunks if n > 1))
    )  # one is to see the shape
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hosts", "work"),
    [(("a", "a"), [2 * (64 + 64), 2 * (64 + 8)]), (("a", "b"), [2 * 200, 0])],
)
def test_ranks_share_the_work_and_get_what_one_would(
    tmp_path: Path, hosts: tuple[str, str], work: list[int]
) -> None:
    """On two hosts with one folder, those of the first do it: two must not write into one file."""
    alone = values(store(tmp_path / "alone").features(images_in(tmp_path), Noise(), ["a"], views=2))
    mp.spawn(rank_main, (tmp_path, hosts), nprocs=2)

    for rank in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"rank{rank}.npy"), alone)
    counts = [int((tmp_path / f"chunks{rank}").read_text()) for rank in (0, 1)]
    assert counts == work
