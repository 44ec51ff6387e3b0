"""Checkpoints: tensors in safetensors, the rest in a file that loads without running code."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, REST = "tensors.safetensors", "state.pt"


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
    _replace(directory / TENSORS, lambda path: save_file(tensors, path))
    _replace(directory / REST, lambda path: torch.save(rest, path))
    saved: dict[str, Any] = _join(rest, tensors)
    return saved


def load_state(directory: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, on the CPU.

    Nothing in the files is executed: safetensors holds only numbers, and the rest is loaded with
    ``weights_only=True``.

    Raises:
        FileNotFoundError: there is no complete checkpoint.

    """
    rest = torch.load(directory / REST, weights_only=True)
    joined = _join(rest, load_file(directory / TENSORS))
    assert isinstance(joined, dict)
    return joined


_MARK = "\0tensor"
"""The key of a dict that stands for a tensor."""


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # a clone: safetensors refuses tensors that share memory
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
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
