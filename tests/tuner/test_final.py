"""After the search: the best configuration is fitted for good, and scored once on test data."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces import load_space
from tests.conftest import EXAMPLES, CommandLine
from tests.examples.scored_task import Scored
from trainables.checkpoint import load_state
from trainables.task import Context
from tuner.errors import UserError
from tuner.experiment import Experiment, make_experiment
from tuner.final import FinalFit, Fit, open_final, read_final, wanted_fit
from tuner.history import read_history
from tuner.results import choose_best
from tuner.run import resume_run, start_run
from tuner.scoring import scores
from tuner.search import build_search
from tuner.search.journal import JOURNAL, MemoryJournal
from tuner.search.search import Search
from tuner.storage import hold
from tuner.trainable import resolve_trainable


def described(folder: Path, **changes: Any) -> dict[str, Any]:
    """An experiment on the Task of ``scored_task.py``: two trials of three epochs."""
    space = {"hyperparameters": {"x": {"type": "ordinal", "sequence": [0.1, 0.4]}}}
    settings = {"notes": str(folder), **changes.pop("settings", {})}
    return {
        "name": "run",
        "trainable": "scored_task:Scored",
        "settings": settings,
        "search_space": space,
        "search": {"algorithm": "grid", "metric": "loss", "mode": "min", "max_epochs": 3},
        "resources": {"max_concurrent_trials": 1},
        "storage": str(folder / "runs"),
        **changes,
    }


def trained_by_hand(config: dict[str, Any], seed: int, epochs: int) -> list[float]:
    """The weight after each epoch of the same Task in this process."""
    context = Context(seed=seed, max_epochs=epochs)
    task, totals = Scored(config, context), []
    for epoch in range(epochs):
        context.start_epoch(epoch)
        task.train_epoch()
        totals.append(task.total.item())
    return totals


def total(checkpoint: str | Path) -> float:
    return load_state(Path(checkpoint))["task"]["total"].item()


def known(run: Path) -> dict[str, Any]:
    return json.loads((run / "best/metrics.json").read_text())


def calls(folder: Path) -> int:
    """How often a Task was asked for its score."""
    return len((folder / "tests").read_text().splitlines())


def test_the_best_configuration_is_fitted_for_good_and_scored_once(
    tmp_path: Path, ray_address: str
) -> None:
    """On the same data and as long, the fit repeats the best trial. Another one can follow."""
    values = described(tmp_path, final={"data": "train"})

    run = start_run(make_experiment(values, {}), address=ray_address, folder=EXAMPLES)

    best, folder = run.search.best, run.folder
    assert best is not None
    assert best.best_epoch == 3
    weight = total(folder / "best/checkpoint")
    assert weight == total(best.checkpoints[3])
    fitted = known(folder)
    assert fitted["metrics"]["loss"] == best.results[3]["loss"]
    assert fitted["metrics"]["for_good"] == 0
    assert fitted == {
        "trial": best.number, "epoch": 3, "final": True, "epochs": 3, "data": "train",
        "search_best": best.results[3], "metrics": fitted["metrics"],
        "test": {"accuracy": weight, "for_good": 0},
    }  # fmt: skip
    assert calls(tmp_path) == 1

    assert resume_run(folder, address="127.0.0.1:1").best  # no need of a cluster
    assert (known(folder), calls(tmp_path)) == (fitted, 1)

    (tmp_path / "no_data").touch()
    resume_run(folder, address=ray_address, overrides={"final.epochs": 1})

    assert (known(folder)["epochs"], calls(tmp_path)) == (1, 2)
    assert "test" not in known(folder)
    resume_run(folder, address="127.0.0.1:1")
    assert calls(tmp_path) == 2


@pytest.mark.slow
def test_a_final_fit_that_was_killed_goes_on_to_what_an_unbroken_one_comes_to(
    tuner_there: CommandLine,
) -> None:
    """On the validation data too, where what the last epoch has counts, and not the best."""
    folder, run = tuner_there.folder, tuner_there.folder / "runs/run"
    (folder / "scored_task.py").write_text((EXAMPLES / "scored_task.py").read_text())
    values = described(
        folder, settings={"sleep": 0.4, "goal": 0.1}, final={"epochs": 6, "data": "train+val"}
    )
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    process = tuner_there.start("run", "e.yaml")
    journal = run / "final" / JOURNAL
    while not journal.exists() or journal.read_text().count('"checkpoint"') < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = journal.read_text()
    epochs = before.count('"event":"result"')
    assert epochs < 6

    shown = tuner_there("show", "runs/run")
    resumed = tuner_there("resume", "runs/run")

    assert f"6 epochs on train+val: {epochs} epochs done" in shown.stdout
    assert resumed.returncode == 0, resumed.stderr
    assert journal.read_text().startswith(before[: before.rfind("\n") + 1])
    best = read_history(run).search.best
    assert best is not None
    seed = best.results[1]["seed"]
    totals = trained_by_hand({"notes": str(folder), **best.config}, seed, 6)
    assert abs(totals[-1] - 0.1) > min(abs(value - 0.1) for value in totals)
    assert total(run / "best/checkpoint") == totals[-1]
    assert known(run)["metrics_on_training_data"]["for_good"] == 1
    assert "metrics" not in known(run)
    assert f"test: accuracy {totals[-1]:.4g}, for_good 1" in resumed.stdout
    assert "no estimate: it trained on that data" in resumed.stdout
    assert calls(folder) == 1


@pytest.mark.slow
def test_what_fails_after_the_search_leaves_the_searchs_model_and_is_named(
    tuner_there: CommandLine,
) -> None:
    folder, run = tuner_there.folder, tuner_there.folder / "runs/run"
    (folder / "scored_task.py").write_text((EXAMPLES / "scored_task.py").read_text())
    (folder / "e.yaml").write_text(yaml.safe_dump(described(folder, final={"epochs": 2})))
    for when in ("final", "test"):
        (folder / f"fail_{when}").touch()

    done = tuner_there("run", "e.yaml")

    assert done.returncode == 0, done.stderr
    assert (
        "final fit: trial 1, 2 epochs on train+val: failed with ValueError: the final fails on "
        "purpose; the best model is the search's own\n"
        "test: failed with ValueError: the test fails on purpose\n"
    ) in done.stdout
    search = read_history(run).search
    assert search.best is not None
    held = {"trial": 1, "epoch": search.best.best_epoch, "metrics": search.best.results[3]}
    assert known(run) == held
    assert total(run / "best/checkpoint") == total(search.best.checkpoints[3])

    (folder / "fail_test").unlink()
    resumed = tuner_there("resume", "runs/run")

    weight = total(run / "best/checkpoint")
    assert known(run) == held | {"test": {"accuracy": weight, "for_good": 0}}
    assert "test: accuracy" in resumed.stdout
    assert "final fit: trial 1, 2 epochs on train+val: failed" in resumed.stdout
    assert tuner_there("best", "runs/run").returncode == 0


def record(folder: Path, **changes: Any) -> tuple[Experiment, Search]:
    """A search that has ended, simulated: the second trial is the best, at epoch 2 of 3."""
    experiment = make_experiment(described(folder, **changes), {})
    search = build_search(experiment.search, load_space(experiment.search_space), MemoryJournal())
    search.open_session()
    while trial := search.next_job():
        for epoch in (1, 2, 3):
            loss = abs(epoch - 2) - trial.config["x"]
            search.report(trial.number, epoch, {"loss": loss})
            search.checkpointed(trial.number, epoch, f"trial_{trial.number}/{epoch}")
        search.close(trial.number)
    experiment.folder.mkdir(parents=True)
    return experiment, search


@pytest.mark.parametrize(
    ("final", "fit"),
    [
        (None, None),
        ({}, Fit(1, 2, "train+val")),
        ({"epochs": 7, "data": "train"}, Fit(1, 7, "train")),
    ],
)
def test_the_fit_is_as_long_as_the_best_result_took_unless_told(
    final: dict[str, Any] | None, fit: Fit | None, tmp_path: Path
) -> None:
    assert wanted_fit(*record(tmp_path, final=final)) == fit


def fit_it(final: FinalFit, *, saved: bool) -> None:
    """What Tune would have the fit do."""
    final.search.open_session(fit=vars(final.fit))
    trial = final.search.next_job()
    assert trial is not None
    for epoch in range(1, final.fit.epochs + 1):
        final.search.report(trial.number, epoch, {"loss": float(epoch)})
        if saved:
            final.search.checkpointed(trial.number, epoch, f"trial_0000/checkpoint_{epoch}")
    final.search.close(trial.number)


def test_the_last_epoch_is_the_result_and_its_checkpoint_alone_is_kept(tmp_path: Path) -> None:
    experiment, search = record(tmp_path, final={"epochs": 3})
    fit = wanted_fit(experiment, search)
    assert fit is not None
    with open_final(hold(str(experiment.folder)), search, fit) as final:
        fit_it(final, saved=True)

    again = read_final(experiment.folder, search)

    assert again is not None
    assert again.result is not None
    checkpoint = experiment.folder / "final/trial_0000/checkpoint_3"
    assert again.result.checkpoints == {3: str(checkpoint)}
    best = choose_best(search, again)
    assert best is not None
    assert best.checkpoint == checkpoint
    assert best.metrics["search_best"] == {"loss": search.trials[1].best_loss}
    assert best.metrics["metrics_on_training_data"] == {"loss": 3.0}


def test_a_fit_whose_model_was_not_saved_has_failed(tmp_path: Path) -> None:
    experiment, search = record(tmp_path, final={})
    fit = wanted_fit(experiment, search)
    assert fit is not None
    with open_final(hold(str(experiment.folder)), search, fit) as final:
        fit_it(final, saved=False)

    assert final.over
    assert final.error == {"type": "NotSaved", "message": "its checkpoint was not saved"}
    best = choose_best(search, final)
    assert best is not None
    assert (best.checkpoint, best.final) == (Path("trial_1/2"), None)


def test_a_fit_of_another_configuration_makes_room(tmp_path: Path) -> None:
    experiment, search = record(tmp_path, final={})
    with open_final(hold(str(experiment.folder)), search, Fit(0, 2, "train")) as final:
        fit_it(final, saved=True)
    with open_final(hold(str(experiment.folder)), search, Fit(0, 2, "train")) as same:
        assert same.over

    with open_final(hold(str(experiment.folder)), search, Fit(1, 2, "train")) as other:
        assert not other.search.trials

    assert read_final(experiment.folder, search) is None


@pytest.mark.parametrize(
    ("name", "answer"),
    [("toy_task:Toy", False), ("scored_task:Scored", True), ("plain_trainable:Curve", False)],
)
def test_only_a_task_that_defines_test_costs_a_worker(name: str, answer: bool) -> None:
    assert scores(resolve_trainable(name, EXAMPLES), {}) is answer


def test_a_trainable_of_tune_cannot_be_told_of_the_validation_data(tmp_path: Path) -> None:
    values = described(tmp_path, trainable="plain_trainable:Curve", final={})

    with pytest.raises(UserError, match=r"^final.data is 'train\+val', but plain_trainable:Curve"):
        start_run(make_experiment(values, {}), folder=EXAMPLES)
