"""What a run has around its search, without Ray."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.commands.recorded_runs import describe_run, open_search, quality
from tuner import run as runs
from tuner.callbacks.console import Console
from tuner.experiment import Experiment, Resources
from tuner.search.journal import MemoryJournal
from tuner.search.simulation import simulate
from tuner.storage import Kept


def test_a_search_goes_on_where_its_observers_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, output = describe_run(tmp_path, "toy"), StringIO()
    (experiment.folder / "trial_0000").touch()  # in the way of its event files
    search = open_search(experiment, MemoryJournal())

    def fit(place: Experiment, trainable: Any, bridge: Any, *, joined: bool) -> None:
        del place, trainable, joined
        simulate(bridge.search, quality, slots=2)

    monkeypatch.setattr(runs, "fit_with_tune", fit)
    trainable: Any = SimpleNamespace(bundles=Resources.bundles)
    console, kept = Console(output), Kept(experiment.folder)
    run = runs._Run(
        experiment, trainable, search, kept, console, searched=False, test=False, grows=False
    )
    run.run_search(slots=2)

    assert search.finished
    warnings = [line for line in output.getvalue().splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: TensorBoard has failed, and ")
