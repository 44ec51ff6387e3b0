"""Checkpoints: what is read is what was written, or an error."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainables.checkpoint import REST, TENSORS, DamagedCheckpointError, load_state, save_state

STATE = {
    "weights": torch.arange(1000.0),
    "halves": torch.ones(3, 4, dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
    "nothing": torch.zeros(0),
    "column": torch.arange(12.0).reshape(3, 4)[:, 1],
    "one of a column": torch.arange(12.0).reshape(3, 4)[:1, 1],
    "one of a transposed": torch.arange(8.0).reshape(1, 8).t()[::8],
    "imaginary": torch.tensor([1 + 2j]).conj().imag,
    "rest": [1, 2.5, "three", None, {"inner": torch.tensor([True])}],
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda content: _flipped(content, len(content) // 2),
    "a bit near the end": lambda content: _flipped(content, len(content) - 8),
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
}


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    saved = save_state(STATE, tmp_path)
    found = load_state(tmp_path)
    for state in (saved, found):
        for name in STATE.keys() - {"rest"}:
            assert torch.equal(state[name], STATE[name])
            assert state[name].dtype == STATE[name].dtype
        assert state["rest"][:4] == [1, 2.5, "three", None]


@pytest.mark.parametrize("damage", DAMAGES)
def test_changed_tensors_are_found_out(damage: str, tmp_path: Path) -> None:
    save_state(STATE, tmp_path)
    (tmp_path / TENSORS).write_bytes(DAMAGES[damage]((tmp_path / TENSORS).read_bytes()))
    with pytest.raises(DamagedCheckpointError, match="is no whole checkpoint"):
        load_state(tmp_path)


def test_any_change_of_the_rest_does_no_harm(tmp_path: Path) -> None:
    """Bits between the archive's members mean nothing; where one counts, that is found out."""
    save_state({"epoch": 3, "task": {"note": "as it was"}}, tmp_path)
    content = (tmp_path / REST).read_bytes()
    found_out = 0
    for place in range(0, len(content), 7):
        (tmp_path / REST).write_bytes(_flipped(content, place))
        try:
            assert load_state(tmp_path) == {"epoch": 3, "task": {"note": "as it was"}}
        except DamagedCheckpointError:
            found_out += 1
    assert found_out > 10


@pytest.mark.parametrize("name", [REST, TENSORS])
def test_half_a_checkpoint_is_none(name: str, tmp_path: Path) -> None:
    save_state(STATE, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DamagedCheckpointError):
        load_state(tmp_path)


def test_what_tells_of_the_machine_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(STATE, tmp_path)
    for error in (MemoryError(), OSError(errno.EIO, "Input/output error")):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("trainables.checkpoint._load_rest", fails)
        with pytest.raises(type(error)):
            load_state(tmp_path)


def test_tensors_that_may_not_be_read_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(STATE, tmp_path)

    def denied(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)  # root may read everything
    with pytest.raises(PermissionError):
        load_state(tmp_path)
