"""Where checkpoints lie, and what it means that one is not there."""

from pathlib import Path

import pytest

from trainables.checkpoint import DamagedCheckpointError
from tuner.errors import UserError
from tuner.storage import checkpoint_at, placed


def test_checkpoints_are_where_the_run_is(tmp_path: Path) -> None:
    event = {"event": "checkpoint", "path": "/elsewhere/run/trial_0003_2/checkpoint_000001"}
    (found,) = placed([event], str(tmp_path))
    assert found["path"] == f"{tmp_path}/trial_0003_2/checkpoint_000001"


@pytest.mark.parametrize(
    "path",
    ["", ".", "/", "best", "/run/best/checkpoint", "trial_0/..", "../checkpoint_1", "trial_0"],
)
def test_a_path_that_is_no_checkpoints_is_refused(path: str, tmp_path: Path) -> None:
    """It would be deleted with all that is in it, once it is needed no more."""
    with pytest.raises(UserError, match="is not where a run has its checkpoints"):
        placed([{"event": "checkpoint", "path": path}], str(tmp_path))


def test_a_checkpoint_that_is_gone_is_damaged(tmp_path: Path) -> None:
    with (
        pytest.raises(DamagedCheckpointError, match="is gone"),
        checkpoint_at(str(tmp_path), tmp_path / "trial_0/checkpoint_0"),
    ):
        pass
