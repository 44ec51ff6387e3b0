"""The two sides do the same work; their figures are for a user to run."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks import training_loop
from tests.benchmarks.training_loop import OURS, PLAIN, Ours, PlainLoop, in_turn, summarise


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[PlainLoop, Ours]:
    torch.set_num_threads(1)
    small = {"image_size": 32, "max_images_per_class": 4, "batch_size": 16}
    monkeypatch.setattr(training_loop, "SETTINGS", {**training_loop.SETTINGS, **small})
    made = training_loop.make_sides(1, tmp_path, threads=1)
    plain, ours = made[PLAIN], made[OURS]
    assert isinstance(plain, PlainLoop)
    assert isinstance(ours, Ours)
    return plain, ours


def test_both_sides_train_as_many_images_in_as_many_steps(sides: tuple[PlainLoop, Ours]) -> None:
    plain, ours = sides
    assert (plain.train(0), ours.train(0)) == (40, 40)
    assert plain.schedule.last_epoch == ours.task.optimization.step == 3
    assert plain.schedule.T_max == ours.task.optimization.total == 6


def test_the_plain_loop_feeds_what_ours_does(sides: tuple[PlainLoop, Ours]) -> None:
    plain, ours = sides
    batch = plain.augmented(plain.rows)
    images, _ = ours.task.data.train.batch(range(40))
    theirs = ours.task.inputs.augment(images).contiguous(memory_format=torch.channels_last)
    assert batch.shape == theirs.shape
    assert batch.stride() == theirs.stride()
    assert batch.dtype == theirs.dtype
    torch.testing.assert_close(batch.aminmax(), theirs.aminmax())  # normalised alike


def test_another_side_begins_in_every_round() -> None:
    assert [in_turn(["a", "b"], number) for number in range(3)] == [
        ["a", "b"], ["b", "a"], ["a", "b"],
    ]  # fmt: skip


def test_a_share_is_of_the_medians() -> None:
    summary = summarise({PLAIN: [10.0, 20.0, 90.0], OURS: [19.0, 1.0, 30.0]})
    assert summary[PLAIN]["share"] == 1.0
    assert summary[OURS] == {
        "images_per_second": 19.0, "least": 1.0, "most": 30.0, "share": 0.95,
    }  # fmt: skip
