"""The accounting of the benchmark; its figures are for a user to run."""

from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks.feature_cache import (
    LOADING_EPOCHS,
    differences,
    load,
    write_images,
)
from tests.benchmarks.harness import BenchmarkError
from tuner.search.trial import Trial


def probe(number: int, rate: float, accuracy: float, loss: float) -> Trial:
    trial = Trial(number, {"learning_rate": rate}, "random", target=2)
    trial.results = {
        1: {"val_accuracy": 0.0, "val_loss": 9.0},
        2: {"val_accuracy": accuracy, "val_loss": loss},
    }
    return trial


def test_differences_are_over_all_trials_after_the_last_epoch() -> None:
    these = [probe(0, 0.1, 0.5, 1.0), probe(1, 0.2, 0.75, 2.0), probe(2, 0.3, 0.5, 1.0)]
    those = [probe(0, 0.1, 0.5, 1.5), probe(1, 0.2, 0.5, 2.0), probe(2, 0.3, 0.5, 1.0005)]
    largest = {"val_accuracy": 0.25, "val_loss": 0.5}
    assert differences(these, those, 2) == {"same": 1, "largest": largest}


def test_runs_of_other_trials_are_not_compared() -> None:
    with pytest.raises(BenchmarkError, match="other configurations"):
        differences([probe(0, 0.1, 0.5, 1.0)], [probe(0, 0.2, 0.5, 1.0)], 2)


@pytest.mark.parametrize("cache_bytes", [0, 10**8], ids=["streamed", "stored"])
def test_every_image_is_loaded_in_every_epoch(tmp_path: Path, cache_bytes: int) -> None:
    write_images(tmp_path / "images", 20)
    assert len(list((tmp_path / "images").glob("class_*/*.jpg"))) == 20
    with Image.open(tmp_path / "images/class_0/00000.jpg") as image:
        assert image.size == (500, 375)
    loaded = load(tmp_path / "images", tmp_path / "cache", cache_bytes)
    assert len(loaded.epoch_seconds) == LOADING_EPOCHS
    assert any((tmp_path / "cache").glob("images-*/images.npy")) == (cache_bytes > 0)
