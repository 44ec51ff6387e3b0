"""Checkpoints: tensors in safetensors, the rest in a file that loads without running code."""

import errno
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

TENSORS, REST = "tensors.safetensors", "state.pt"
OUT_OF_REACH = (
    *(errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""Errors that tell of the machine or the file system, and nothing of the file."""
CHECKSUM = "crc32"
"""Of all tensors' bytes, among the metadata of :data:`TENSORS`."""


class DamagedCheckpointError(RuntimeError):
    """A checkpoint that is not what was written: cut off, changed, or not all there."""


def save_state(state: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Write a nested dict or list of tensors and plain values into ``directory``.

    Returns what :func:`load_state` would: a copy on the CPU.

    The files are written beside and renamed, the small one last: a directory without it is no
    checkpoint.

    Raises:
        TypeError: a value is neither tensor nor plain.

    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    checksum = {CHECKSUM: str(_checksum(tensors))}
    _replace(directory / TENSORS, lambda path: save_file(tensors, path, checksum))
    _replace(directory / REST, lambda path: torch.save(rest, path))
    saved: dict[str, Any] = _join(rest, tensors)
    return saved


def load_state(directory: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, on the CPU.

    Nothing in the files is executed: safetensors holds only numbers, and the rest is loaded with
    ``weights_only=True``.

    Raises:
        DamagedCheckpointError: there is no whole checkpoint.
        OSError: it cannot be read just now.
        MemoryError: it has no room here.

    """
    try:
        joined = _join(_load_rest(directory / REST), _load_tensors(directory / TENSORS))
        assert isinstance(joined, dict)
    except MemoryError:
        raise
    except Exception as error:  # what the readers raise for a file like this has no end
        if isinstance(error, OSError) and error.errno in OUT_OF_REACH:
            raise
        reason = " ".join(str(error).split())[:300]
        raise DamagedCheckpointError(
            f"{directory} is no whole checkpoint ({type(error).__name__}: {reason})"
        ) from error
    return joined


def _load_rest(path: Path) -> Any:
    with ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch itself does not look
            raise ValueError(f"{damaged} in {path.name} has changed")
    return torch.load(path, weights_only=True)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    path.open("rb").close()  # safetensors' own errors have no errno
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        written = (file.metadata() or {}).get(CHECKSUM)
    if written is not None and int(written) != _checksum(tensors):
        raise ValueError(f"{path.name} has changed: its checksum is another one")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    found = 0
    for _, tensor in sorted(tensors.items()):
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return found


_MARK = "\0tensor"
"""The key of a dict that stands for a tensor."""


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # a copy: safetensors refuses tensors that share memory, and strides that skip some
        own = torch.empty(value.shape, dtype=value.dtype, device="cpu")
        tensors[path] = own.copy_(value.detach())
        return {_MARK: path}
    if isinstance(value, dict):
        return {k: _split(v, f"{path}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise TypeError(
        f"state_dict(){path.replace('/', '.')} is a {type(value).__name__}: a checkpoint holds "
        "tensors, numbers, strings, None, and dicts and lists of them"
    )


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _MARK in value:
            return tensors[value[_MARK]]
        return {k: _join(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    return value


def _replace(path: Path, write: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    write(beside)
    beside.replace(path)
