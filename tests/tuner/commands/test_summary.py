"""What a run came to, as it is printed."""

from pathlib import Path

import pytest

from tests.tuner.commands.recorded_runs import record_run
from tuner.commands.summary import print_summary
from tuner.run import Summary


def test_memory_that_grew_in_many_trials_is_one_fact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = record_run(tmp_path, "toy")
    for trial in search.trials[2:5]:
        trial.results.setdefault(1, {"x": 0.0})["tensor_growth"] = 7
    print_summary(Summary(tmp_path / "toy", search, slots=2, actors=1))

    lines = capsys.readouterr().out.splitlines()
    (warning,) = (line for line in lines if line.startswith("warning: "))
    assert warning.startswith("warning: 3 trials held more memory with each epoch, the first (tri")
    assert "trial actors started: 1, slots: 2" in lines
