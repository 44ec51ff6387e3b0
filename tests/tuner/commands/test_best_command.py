import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.tuner.commands.recorded_runs import cut_journal, record_run
from tuner.search.journal import JOURNAL, Journal


def write_best(run: Path, trial: int, epoch: int, *files: str) -> None:
    (run / "best" / "checkpoint").mkdir(parents=True)
    (run / "best" / "metrics.json").write_text(json.dumps({"trial": trial, "epoch": epoch}))
    for name in ("config.yaml", *files):
        (run / "best" / name).touch()


def test_the_best_trial_is_printed_with_metrics_hyperparameters_and_how_to_predict(
    tuner: CommandLine, tmp_path: Path
) -> None:
    best = record_run(tmp_path, "flowers").best
    assert best is not None
    write_best(tmp_path / "flowers", best.number, best.best_epoch, "labels.json", "model")

    done = tuner("best", "flowers")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"flowers: trial {best.number}, epoch {best.best_epoch} (finished)",
        "",
        "metrics",
        f"val_accuracy  {-best.best_loss:.6g}",
        "",
        "hyperparameters",
        f"x                {best.config['x']}",
        "",
        "model: flowers/best",
        "use it: python -m tuner predict flowers/best INPUT...",
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["weights"], 'use it, in Python: tuner.load_model("flowers/best")'),
        ([], "checkpoint: flowers/best/checkpoint (the trainable exports no model)"),
    ],
)
def test_what_best_holds_decides_what_is_proposed(
    tuner: CommandLine, tmp_path: Path, files: list[str], said: str
) -> None:
    best = record_run(tmp_path, "flowers").best
    assert best is not None
    write_best(tmp_path / "flowers", best.number, best.best_epoch, *files)

    assert tuner("best", "flowers").stdout.splitlines()[-1] == said


def test_before_best_is_written_the_way_to_it_is_said(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    cut_journal(tmp_path / "flowers", 12)

    broken_off = tuner("best", "flowers")
    with Journal(tmp_path / "flowers" / JOURNAL):
        running = tuner("best", "flowers")

    assert broken_off.stdout.endswith(
        "no model yet: write it with python -m tuner resume flowers\n"
    )
    assert running.stdout.endswith("no model yet: it is written when the run ends\n")


def test_an_older_model_in_best_is_called_so(tuner: CommandLine, tmp_path: Path) -> None:
    best = record_run(tmp_path, "flowers").best
    assert best is not None
    write_best(tmp_path / "flowers", best.number + 1, 1, "weights")

    done = tuner("best", "flowers")

    assert f"flowers/best still holds trial {best.number + 1}, epoch 1" in done.stdout


def test_a_run_without_results_has_no_best(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    cut_journal(tmp_path / "flowers", 2)

    done = tuner("best", "flowers")

    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers has no result yet (interrupted)")
