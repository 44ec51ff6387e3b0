"""Where the checkpoint of the best model is damaged or gone, the run has it in best/, or again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import EXAMPLES, toy_experiment
from trainables.checkpoint import TENSORS, load_state
from tuner import run as runs
from tuner.errors import InterruptedRunError
from tuner.history import read_history
from tuner.run import resume_run, start_run
from tuner.search.journal import JOURNAL, Event

VARIANTS: dict[str, dict[str, Any]] = {
    "search": {},
    "target": {"stop__target": 1e6},  # met by the first result, and by each resume at once
    "final": {"final": {"data": "train"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> dict[str, Path]:
    """Folders of runs that came to their end, by variant."""

    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        experiment = toy_experiment(folder, search__num_trials=2, **VARIANTS[name])
        return start_run(experiment, address=ray_address, folder=EXAMPLES).folder

    return {name: run(name) for name in VARIANTS}


@pytest.fixture(params=VARIANTS)
def run(request: pytest.FixtureRequest, finished: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a finished run, whose end is 1,000 seconds ago."""
    copy = tmp_path / request.param
    shutil.copytree(finished[request.param].parent, copy)
    for journal in copy.rglob(JOURNAL):
        events = [json.loads(line) for line in journal.read_text().splitlines()]
        earlier = [{**event, "time": event["time"] - 1000} for event in events]
        journal.write_text("".join(json.dumps(event) + "\n" for event in earlier))
    return copy / finished[request.param].name


def damage(folder: Path) -> None:
    """Change a bit of a checkpoint."""
    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def best_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of what best/ holds: a final fit's are as those of the best trial."""
    best = model(run / "best/checkpoint")
    found = [p.parent for p in run.rglob(TENSORS) if "best" not in p.parts]
    return [folder for folder in found if torch.equal(model(folder), best)]


def model(checkpoint: Path) -> torch.Tensor:
    weights: torch.Tensor = load_state(checkpoint)["task"]["model"]["weight"]
    return weights.clone()  # what is read is the file, mapped into memory


def results(run: Path) -> list[Event]:
    lines = [path.read_text() for path in sorted(run.rglob(JOURNAL))]
    events = [json.loads(line) for text in lines for line in text.splitlines()]
    return [event for event in events if event["event"] == "result"]


def test_a_best_model_that_is_there_is_left_as_it_is(run: Path) -> None:
    before = {path: path.read_bytes() for path in (run / "best").rglob("*") if path.is_file()}
    for checkpoint in best_checkpoints(run):
        damage(checkpoint)
    assert resume_run(run, address="127.0.0.1:1").best == run / "best"  # no need of a cluster
    assert before == {p: p.read_bytes() for p in (run / "best").rglob("*") if p.is_file()}


@pytest.mark.parametrize("lose", [damage, shutil.rmtree])
def test_a_best_model_that_is_lost_is_trained_again(
    run: Path, lose: Callable[[Path], None], ray_address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    weights, heard = model(run / "best/checkpoint"), results(run)
    facts = json.loads((run / "best/metrics.json").read_text())
    seconds = read_history(run).search.seconds
    for checkpoint in best_checkpoints(run):
        lose(checkpoint)
    lose(run / "best/checkpoint")

    resume_run(run, address=ray_address)

    assert torch.equal(model(run / "best/checkpoint"), weights)
    assert json.loads((run / "best/metrics.json").read_text()) == facts
    assert results(run) == heard  # nothing is counted twice
    assert "warning: the best model is lost: " in capfd.readouterr().out
    assert read_history(run).search.seconds < seconds + 500, "what lay between is not the run's"
    assert resume_run(run, address="127.0.0.1:1").best == run / "best"


def test_an_interruption_while_a_lost_model_is_trained_again(
    finished: dict[str, Path], tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a resume goes on with that, best/ holds the best of what is left."""
    run = tmp_path / "runs" / finished["search"].name
    shutil.copytree(finished["search"], run)
    weights = model(run / "best/checkpoint")
    for checkpoint in best_checkpoints(run):
        damage(checkpoint)
    damage(run / "best/checkpoint")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "fit_with_tune", interrupt)
        with pytest.raises(InterruptedRunError, match="Go on with: "):
            resume_run(run, address=ray_address)
    assert not torch.equal(model(run / "best/checkpoint"), weights)
    assert (run / "report.html").exists()

    resume_run(run, address=ray_address)
    assert torch.equal(model(run / "best/checkpoint"), weights)
