import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from trainables.image_classification.sources import open_source

RNG = np.random.default_rng(0)


def write_fashion_mnist(root: Path, train: int = 40, test: int = 10):
    """Random images in the files of FashionMNIST: class i % 10, 28 x 28."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        pixels = RNG.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Random images in the files of CIFAR10, 20 in each; their sums are what the class expects."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]  # noqa: S324

    def batch(name: str):
        data = RNG.integers(0, 256, (20, 3072), np.uint8)
        return write(name, {"data": data, "labels": [i % 10 for i in range(20)]})

    cifar = datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(cifar, "test_list", [batch("test_batch")])
    names = {"label_names": ["plane", "car", "bird", "cat", "deer", *"vwxyz"]}
    filename, md5 = write("batches.meta", names)
    meta = {"filename": filename, "key": "label_names", "md5": md5}
    monkeypatch.setattr(cifar, "meta", meta)


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch):
    """12 flowers of 2 kinds, 4 in each split, in the files of Flowers102."""
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 13):
        pixels = RNG.integers(0, 256, (30, 20 + i, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "jpg" / f"image_{i:05d}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": [[1, 2] * 6]})
    ids = {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6, 7, 8]], "tstid": [[9, 10, 11, 12]]}
    scipy.io.savemat(folder / "setid.mat", ids)
    sums = {
        key: (name, hashlib.md5((folder / name).read_bytes()).hexdigest())  # noqa: S324
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    sums["image"] = ("102flowers.tgz", "")
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", sums)
    monkeypatch.setattr(datasets.Flowers102, "classes", ["rose", "tulip"])


def test_a_set_with_train_and_test_leaves_the_split_of_train_open(tmp_path: Path):
    write_fashion_mnist(tmp_path)

    source = open_source("torchvision:FashionMNIST", str(tmp_path))

    assert source.labels[:2] == ["T-shirt/top", "Trouser"]
    assert source.validation is None
    assert source.test.tolist() == [False] * 40 + [True] * 10
    assert source.targets.tolist() == [i % 10 for i in range(40)] + list(range(10))
    assert (source.names[0], source.names[40]) == ("FashionMNIST train[0]", "FashionMNIST test[0]")
    expected = datasets.FashionMNIST(tmp_path, train=False)[3][0].convert("RGB")
    assert source.read(43, 28).tobytes() == expected.tobytes()


def test_names_of_classes_come_from_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar10(tmp_path, monkeypatch)

    source = open_source("torchvision:CIFAR10", str(tmp_path))

    assert source.labels[:3] == ["plane", "car", "bird"]
    assert (len(source.names), source.test.sum()) == (120, 20)
    expected = datasets.CIFAR10(tmp_path)[7][0]
    assert source.read(7, 32).tobytes() == expected.tobytes()


def test_a_set_with_its_own_validation_split_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_flowers(tmp_path, monkeypatch)

    source = open_source("torchvision:Flowers102", str(tmp_path))

    assert source.labels == ["rose", "tulip"]
    assert source.targets.tolist() == [0, 1] * 6
    assert source.validation is not None
    assert source.validation.nonzero()[0].tolist() == [4, 5, 6, 7]
    assert source.test.nonzero()[0].tolist() == [8, 9, 10, 11]
    assert source.read(0, 16).size == (21, 30)


def test_a_damaged_image_of_a_set_is_no_image_and_a_lost_one_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_flowers(tmp_path, monkeypatch)
    source = open_source("torchvision:Flowers102", str(tmp_path))
    jpg = tmp_path / "flowers-102" / "jpg"
    (jpg / "image_00001.jpg").write_bytes((jpg / "image_00001.jpg").read_bytes()[:-50])
    (jpg / "image_00002.jpg").unlink()

    with pytest.raises(ValueError, match="truncated"):
        source.read(0, 16)
    with pytest.raises(FileNotFoundError):
        source.read(1, 16)


def test_a_set_without_splits_is_taken_whole(tmp_path: Path):
    for kind in ("River", "Forest"):
        (tmp_path / "eurosat" / "2750" / kind).mkdir(parents=True)
        for i in range(3):
            pixels = RNG.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "eurosat" / "2750" / kind / f"{i}.jpg")

    source = open_source("torchvision:EuroSAT", str(tmp_path))

    assert source.labels == ["Forest", "River"]
    assert source.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.validation is None
    assert not source.test.any()


def test_other_images_make_another_digest(tmp_path: Path):
    write_fashion_mnist(tmp_path / "a")
    write_fashion_mnist(tmp_path / "b")

    first = open_source("torchvision:FashionMNIST", str(tmp_path / "a"))
    open_source.cache_clear()
    again = open_source("torchvision:FashionMNIST", str(tmp_path / "a"))
    other = open_source("torchvision:FashionMNIST", str(tmp_path / "b"))

    assert first.content == again.content
    assert first.content != other.content


def test_a_set_that_cannot_be_downloaded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_network(*_arguments: object, **_more: object):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", no_network)

    with pytest.raises(ValueError, match=r"cannot be downloaded \(<urlopen error") as refusal:
        open_source("torchvision:CIFAR10", str(tmp_path / "new"))

    assert f"not in data_root ({tmp_path / 'new'})" in str(refusal.value)


def test_one_that_is_not_there_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(dataset: datasets.FashionMNIST):
        if not dataset._check_exists():
            write_fashion_mnist(Path(dataset.root))

    monkeypatch.setattr(datasets.FashionMNIST, "download", download)

    source = open_source("torchvision:FashionMNIST", str(tmp_path / "new"))

    assert len(source.names) == 50


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("torchvision:cifar10", "give torchvision:CIFAR10"),
        ("torchvision:FashionMINST", "give torchvision:FashionMNIST"),
        ("torchvision:FakeData", "is no classification set of torchvision"),
        ("torchvision:", "give torchvision:CIFAR10, for one"),
        ("torchvision:FER2013", r"which torchvision does not download \("),
        ("torchvision:EMNIST", "has no split for training"),
        ("torchvision:PhotoTour", r"takes more than a folder and a split \(.*'name'"),
    ],
)
def test_what_cannot_be_had_is_refused(data: str, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message) as refusal:
        open_source(data, str(tmp_path))

    assert str(refusal.value).startswith(f"data is {data!r}")
    assert "\n" not in str(refusal.value)


def test_items_that_are_no_image_and_class_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_fashion_mnist(tmp_path)
    monkeypatch.setattr(datasets.FashionMNIST, "__getitem__", lambda *_: ([1, 2], 0))

    with pytest.raises(ValueError, match="whose items are list and int: they must be an image"):
        open_source("torchvision:FashionMNIST", str(tmp_path))


def test_a_set_needs_a_folder():
    with pytest.raises(ValueError, match=r"^data_root is null, but data is 'torchvision:CIFAR10'"):
        open_source("torchvision:CIFAR10")
