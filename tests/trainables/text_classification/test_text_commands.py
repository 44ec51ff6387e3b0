"""The command line with texts, as a user has it."""

import csv
import json
from pathlib import Path

import pytest
from docstring_files import PACKAGES, write_docstrings

from tests.conftest import CommandLine
from trainables.text_classification import TextClassifier
from tuner.commands.export import export
from tuner.results import load_model

OVERRIDES = {
    "name": "mine",
    "settings.max_tokens": 24,
    "search.num_trials": 2,
    "search.max_epochs": 3,
    "logging.max_share": 0,
}


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> CommandLine:
    """A folder with a run on a user's .csv, two ranks a trial."""
    folder = tmp_path_factory.mktemp("mine")
    write_docstrings(folder / "mine.csv")
    tuner = CommandLine(folder, {"RAY_ADDRESS": ray_address})
    overrides = {**OVERRIDES, "cache.dir": folder / "cache"}
    options = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    done = tuner("run", "--data", "mine.csv", *options)  # by its columns, it is texts
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials (" in done.stdout
    return tuner


def test_a_run_on_a_csv_leaves_a_model_that_reads_texts(tuner: CommandLine) -> None:
    best = tuner.folder / "runs" / "mine" / "best"

    assert json.loads((best / "labels.json").read_text()) == list(PACKAGES)
    assert json.loads((best / "metrics.json").read_text())["metrics"]["val_accuracy"] > 0.5
    assert isinstance(load_model(best), TextClassifier)


def test_texts_and_files_of_them_are_predicted(tuner: CommandLine) -> None:
    text = "Emit a record to the\thandlers of this logger."
    with (tuner.folder / "mine.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]

    done = tuner("predict", "runs/mine", text, "mine.csv")

    assert done.returncode == 0, done.stderr
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert [shown for shown, _, _ in found] == [text.replace("\t", " "), *texts]
    wanted = load_model(tuner.folder / "runs" / "mine").predict([text, *texts])
    assert [tuple(rest) for _, *rest in found] == [
        (prediction.label, f"{prediction.probability:.4f}") for prediction in wanted
    ]


def test_the_model_is_exported_and_compared(
    tuner: CommandLine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    export(tuner.folder / "runs" / "mine", "onnx", tmp_path / "model.onnx")

    out = capsys.readouterr().out
    assert "takes int64 (batch, 24)" in out
    assert "compared on 3 random inputs" in out


def test_a_bad_csv_is_refused_in_a_line_that_names_it(tuner: CommandLine) -> None:
    (tuner.folder / "bad.csv").write_text("text,label\na,x\n,y\n")

    done = tuner("validate", "texts", "--data", "bad.csv")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: settings: data is ")
    assert done.stderr.endswith("bad.csv', whose line 3 has no text or no label: add it\n")
