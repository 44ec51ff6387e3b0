from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from trainables.image_classification.sources.files import digest, read_file, visible_files
from trainables.image_classification.sources.source import Source

_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""What the parts of a data set are called, and the names that their folders go by."""
_REMEDY = "a .csv file of paths and labels, torchvision:NAME, or digits"


def open_folder(data: str) -> Source:
    """The images of a folder: of its train/, val/ and test/, or of its class sub-folders.

    Raises:
        ValueError: it is no folder, cannot be read, or holds no images.

    """
    root = Path(data).expanduser().absolute()
    try:
        splits = _splits(data, root)
        folders = [folder for split in splits.values() for folder in _class_folders(split)]
        labels = sorted({folder.name for folder in folders})
        found = [
            (path, label, name) for name, split in splits.items() for path, label in _files(split)
        ]
        stats = [path.stat() for path, _, _ in found]
    except OSError as error:
        raise ValueError(
            f"data is {data!r}, which cannot be read ({error.strerror}: {error.filename}): give a "
            f"folder that this user may read, {_REMEDY}"
        ) from error
    if not found:
        raise ValueError(
            f"data is {data!r}, which holds no images in class sub-folders: put the images of each "
            f"class into a sub-folder named after it"
        )
    paths = [path for path, _, _ in found]
    names = [str(path.relative_to(root)) for path in paths]
    index = {label: i for i, label in enumerate(labels)}
    return Source(
        data=data,
        names=names,
        labels=labels,
        targets=np.array([index[label] for _, label, _ in found]),
        validation=np.array([split == "val" for *_, split in found]) if "val" in splits else None,
        test=np.array([split == "test" for *_, split in found]),
        content=digest(root, names, stats),
        read=partial(read_file, paths),
    )


def _splits(data: str, root: Path) -> dict[str, Path]:
    """Its train/, val/ and test/ by these names, or the folder itself, by no name.

    A class may well be called train.

    A test/ without class sub-folders is left alone: such images have no labels to test by.
    """
    if not root.is_dir():
        raise ValueError(
            f"data is {data!r}, but {root} is no folder: give a folder with one sub-folder of "
            f"images a class, {_REMEDY}"
        )
    present: dict[str, Path] = {}
    for split, names in _SPLITS.items():
        for folder in (root / name for name in names):
            if folder.is_dir() and _class_folders(folder):
                if split in present:
                    raise ValueError(
                        f"data is {data!r}, which has both {present[split].name}/ and "
                        f"{folder.name}/: take one of them away"
                    )
                present[split] = folder
    if [*present] in (["train"], ["val"], ["val", "test"]):
        absent = "val" if "train" in present else "train"
        there = next(iter(present.values())).name
        raise ValueError(
            f"data is {data!r}, which has class sub-folders in {there}/ but none in {absent}/: "
            "give both, or the class sub-folders alone to have them split"
        )
    return present if "train" in present else {"": root}


def _class_folders(split: Path) -> list[Path]:
    return sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(split: Path) -> Iterator[tuple[Path, str]]:
    """All files of the class folders, however deep, with their class."""
    for folder in _class_folders(split):
        for path in visible_files(folder):
            yield path, folder.name
