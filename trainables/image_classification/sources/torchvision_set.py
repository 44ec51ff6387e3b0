import difflib
import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import ConcatDataset

from trainables.image_classification.decoding import to_rgb
from trainables.image_classification.sources.source import Source

PREFIX = "torchvision:"
_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
_LOOKED_AT = 16


def open_torchvision(data: str, data_root: str | None) -> Source:
    """A classification data set of torchvision, with the splits that it has itself.

    It is taken to be what its name says: a digest of all labels and of a few images stands for it.

    Raises:
        ValueError: there is none of that name, it is neither there nor to be had, or its items are
            not an image and its class.

    """
    name = data.removeprefix(PREFIX)
    constructor = _constructor(data, name)
    if data_root is None:
        raise ValueError(
            f"data_root is null, but data is {data!r}: set data_root to the folder that the data "
            f"set lies in, or is to be downloaded into"
        )
    root = Path(data_root).expanduser().absolute()
    parts = _parts(data, constructor, root)
    targets = np.concatenate([_targets(data, part) for part in parts.values()])
    labels, targets = _labels(next(iter(parts.values())), targets)
    splits = np.repeat(list(parts), [len(part) for part in parts.values()])
    images: Any = ConcatDataset(parts.values())
    read = partial(_read, images)
    content = hashlib.sha256(f"{name} {root}".encode() + targets.tobytes())
    for row in np.linspace(0, len(images) - 1, _LOOKED_AT).astype(int).tolist():
        content.update(_look(read, row))
    return Source(
        data=data,
        names=[f"{name} {split}[{i}]" for split, part in parts.items() for i in range(len(part))],
        labels=labels,
        targets=targets,
        validation=splits == "val" if "val" in parts else None,
        test=splits == "test",
        content=content.hexdigest(),
        read=read,
    )


def _constructor(data: str, name: str) -> Callable[..., Any]:
    """The class of that name, which needs no more than a root and a split."""
    from torchvision import datasets

    known = {
        each.lower(): each
        for each in datasets.__all__
        if "root" in inspect.signature(getattr(datasets, each)).parameters
    }
    if name not in known.values():
        near = difflib.get_close_matches(name.lower(), known, n=3)
        hint = " or ".join(PREFIX + known[each] for each in near) or f"{PREFIX}CIFAR10, for one"
        raise ValueError(
            f"data is {data!r}, which is no classification set of torchvision: give {hint}"
        )
    constructor: Callable[..., Any] = getattr(datasets, name)
    return constructor


def _parts(data: str, constructor: Callable[..., Any], root: Path) -> dict[str, Any]:
    """Its data sets by split; train alone where it has no splits."""
    parameters = inspect.signature(constructor).parameters
    choices: dict[str, list[dict[str, Any]]]
    if "train" in parameters:
        choices = {"train": [{"train": True}], "test": [{"train": False}]}
    elif "split" in parameters:
        choices = {part: [{"split": name} for name in names] for part, names in _SPLITS.items()}
    else:
        choices = {"train": [{}]}
    found = {
        part: next((d for each in options if (d := _open(data, constructor, root, each))), None)
        for part, options in choices.items()
    }
    if found["train"] is None:
        raise ValueError(
            f"data is {data!r}, which has no split for training: give another, or its images as "
            f"folders"
        )
    return {part: dataset for part, dataset in found.items() if dataset is not None}


def _open(
    data: str, constructor: Callable[..., Any], root: Path, arguments: Mapping[str, Any]
) -> Any:
    """The data set, downloaded where it is not there yet; None: it has no such split."""
    downloads = "download" in inspect.signature(constructor).parameters
    try:
        try:
            return constructor(root, **arguments)
        except (RuntimeError, OSError):  # each set has its own way to say that it is not there
            if not downloads:
                raise
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{data.removeprefix(PREFIX)}.lock"):  # one process a node
            return constructor(root, download=True, **arguments)
    except (RuntimeError, OSError, ImportError) as error:
        could = "cannot be downloaded" if downloads else "which torchvision does not download"
        raise ValueError(
            f"data is {data!r}, which is not in data_root ({root}) and {could} "
            f"({_one_line(error)}): put its files there as torchvision keeps them"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"data is {data!r}, which takes more than a folder and a split ({error}): give its "
            f"images as folders or a .csv file"
        ) from error
    except ValueError as error:
        if "Unknown value" in str(error):  # torchvision's word for a split that there is not
            return None
        raise ValueError(f"data is {data!r}, which cannot be opened: {_one_line(error)}") from error


def _targets(data: str, dataset: Any) -> NDArray[np.int64]:
    """The class of each item, from where the set keeps them, or else from the items themselves.

    Raises:
        ValueError: an item is not an image and a class.

    """
    image, target = _item(data, dataset)
    sound = isinstance(image, Image.Image) and isinstance(target, int | np.integer)
    if not sound:
        raise ValueError(
            f"data is {data!r}, whose items are {type(image).__name__} and "
            f"{type(target).__name__}: they must be an image and a class"
        )
    for name in ("targets", "labels", "_labels", "y"):
        kept = np.asarray(getattr(dataset, name, []))
        if kept.shape == (len(dataset),) and np.issubdtype(kept.dtype, np.integer):
            return kept.astype(np.int64)
    for name in ("samples", "_samples"):
        samples = getattr(dataset, name, [])
        if len(samples) == len(dataset):
            return np.array([target for _, target in samples], dtype=np.int64)
    return np.array([dataset[i][1] for i in range(len(dataset))], dtype=np.int64)


def _item(data: str, dataset: Any) -> tuple[Any, Any]:
    try:
        image, target = dataset[0]
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"data is {data!r}, whose first item is not an image and a class: {_one_line(error)}"
        ) from error
    return image, target


def _labels(dataset: Any, targets: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the classes, and the targets as indices into them."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or []
    if targets.min() >= 0 and targets.max() < len(names):
        return [name if isinstance(name, str) else ", ".join(name) for name in names], targets
    values, indices = np.unique(targets, return_inverse=True)
    return [str(value) for value in values], indices


def _look(read: Callable[[int, int], Image.Image], row: int) -> bytes:
    try:
        return read(row, 0).tobytes()
    except ValueError:  # to be found, and refused or skipped, when all are decoded
        return b""


def _read(images: Any, row: int, _size: int) -> Image.Image:
    try:
        image, _ = images[row]
        return to_rgb(image)
    except Exception as error:  # Pillow raises almost anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file's fault, not the image's
        raise ValueError(str(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
