"""The ways are compared on the same work; their figures are for a user to run."""

import io

import pytest
import torch
from rich.console import Console

from tests.benchmarks import parallel_ways, training_loop

SMALL = {"image_size": 16, "max_images_per_class": 2, "batch_size": 8}
SMALL |= {"backbone": "test_efficientnet", "weights": "none"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="is about a machine without GPUs")
def test_a_way_is_measured_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(parallel_ways.WAYS) == ["ddp", "fsdp", "pipeline", "data_parallel"]
    # one whose ranks must start, which takes seconds
    some = {way: parallel_ways.WAYS[way] for way in ("pipeline", "data_parallel")}
    monkeypatch.setattr(parallel_ways, "WAYS", some)
    ways = parallel_ways.measure({**training_loop.SETTINGS, **SMALL}, epochs=1, threads=1)

    assert list(ways) == list(some)
    assert "the trial has 0" in ways["data_parallel"]["refused"]
    held, peak, ram = parallel_ways.COLUMNS
    assert ways["pipeline"]["images_per_second"] > 0
    assert [len(ways["pipeline"]["mb"][name]) for name in (held, peak, ram)] == [2, 0, 2]
    assert ways["pipeline"]["mb"][held][0] != ways["pipeline"]["mb"][held][1], "each has its part"
    shown = io.StringIO()
    parallel_ways.show(ways, 1, Console(file=shown, width=200))
    assert "data_parallel: refused: parallel is 'data_parallel'" in shown.getvalue()
