"""Bad input: exit code 1 and one clear line, before any actor starts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tuner.__main__ import main

Check = Callable[[list[str]], None]

TINY = {"learning_rate": {"type": "float", "lower": 0.001, "upper": 0.1, "log": True}}


def write(folder: Path, **changes: Any) -> None:
    values = {
        "name": "bad",
        "settings": {"data": "digits", "image_size": 32},
        "search_space": {"hyperparameters": TINY},
        "search": {"num_trials": 1, "max_epochs": 1},
        **changes,
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))


def hyperparameter(**fields: Any) -> dict[str, Any]:
    return {"search_space": {"hyperparameters": {"learning_rate": {"type": "float", **fields}}}}


def empty(folder: Path) -> None:
    (folder / "data").mkdir()


def one_class(folder: Path) -> None:
    (folder / "data" / "cats").mkdir(parents=True)
    for number in range(9):
        pixels = np.full((40, 40, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / "data" / "cats" / f"{number}.png")


def data(name: str) -> dict[str, Any]:
    return {"settings": {"data": name, "image_size": 32}}


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"serch": {}}, ["unknown key serch", "did you mean search?"]),
    "wrong type": ({"search": {"num_trials": "x"}}, ["search.num_trials is 'x'", "integer"]),
    "sampler of a search without one": (
        {"search": {"algorithm": "random", "sampler": "gp"}},
        ["search: sampler is 'gp' and algorithm is 'random'", "leave it out"],
    ),
    "guess of a name that is none": (
        {"search": {"num_trials": 3, "initial": [{}, {"learning_rte": 0.1}]}},
        ["search.initial[1]: learning_rte is no hyperparameter", "learning_rate"],
    ),
    "guess out of bounds": (
        {"search": {"num_trials": 2, "initial": [{"learning_rate": 5}]}},
        ["search.initial[0]: learning_rate is 5: it must be a number from 0.001 to 0.1"],
    ),
    "more guesses than trials": (
        {"search": {"num_trials": 1, "initial": [{"learning_rate": 0.01}]}},
        ["search: initial has 1 configurations", "num_trials, 1"],
    ),
    "guesses for a grid": (
        {"search": {"algorithm": "grid", "initial": [{}]}},
        ["search: algorithm is 'grid'", "initial"],
    ),
    "warm start from no run": (
        {"search": {"num_trials": 2, "warm_start": ["nowhere"]}},
        ["nowhere is no run folder", "search.warm_start"],
    ),
    "lower above upper": (
        hyperparameter(lower=1, upper=0.1),
        ["search_space: hyperparameters.learning_rate", "lower", "upper"],
    ),
    "log from zero": (
        hyperparameter(lower=0, upper=0.1, log=True),
        ["search_space: hyperparameters.learning_rate", "log"],
    ),
    "unknown parent": (
        {
            "search_space": {
                "hyperparameters": {**TINY, "momentum": {"type": "float", "lower": 0, "upper": 1}},
                "conditions": [{"child": "momentum", "parent": "optimiser", "equals": "sgd"}],
            }
        },
        ["search_space: conditions", "optimiser"],
    ),
    "hyperparameter the task does not know": (
        {"search_space": {"hyperparameters": {"lerning_rate": TINY["learning_rate"]}}},
        ["unknown key lerning_rate", "did you mean learning_rate"],
    ),
    "a kind of event that there is not": (
        {"logging": {"skip": ["scalars", "histogram"]}},
        ["logging.skip names 'histogram'", "did you mean histograms?"],
    ),
    "no such folder": (data("nowhere"), ["data", "nowhere"]),
    "unknown backbone": (
        {"settings": {"data": "digits", "backbone": "resnet51"}},
        ["backbone", "resnet51", "resnet50"],
    ),
    "more GPUs than there are": (
        {"resources": {"gpus_per_trial": 2}},
        ["resources: a trial needs", "2 GPUs", "the cluster has", "0 GPUs"],
    ),
    "a name that leaves the storage": ({"name": "../bad"}, ["name is '../bad'"]),
    "storage that cannot be written": (
        {"storage": "/proc/nothing"},
        ["storage is '/proc/nothing'", "cannot be written"],
    ),
    "no such trainable": ({"trainable": "image_clasification"}, ["image_classification?"]),
    "no such module": ({"trainable": "nowhere:Task"}, ["cannot import 'nowhere'"]),
}


@pytest.mark.parametrize("case", list(CASES))
def test_it_is_refused_in_one_line(case: str, tmp_path: Path, check: Check) -> None:
    changes, parts = CASES[case]
    write(tmp_path, **changes)
    check(parts)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (empty, ["data", "holds no images in class sub-folders"]),
        (one_class, ["data", "one class", "cats"]),
    ],
)
def test_data_that_is_no_data(
    make: Callable[[Path], None], parts: list[str], tmp_path: Path, check: Check
) -> None:
    make(tmp_path)
    write(tmp_path, **data("data"))
    check(parts)


def test_a_run_that_exists_says_how_to_resume_it(tmp_path: Path, check: Check) -> None:
    write(tmp_path)
    (tmp_path / "runs" / "bad").mkdir(parents=True)
    (tmp_path / "runs" / "bad" / "journal.jsonl").write_text('{"event":"session","time":0}\n')
    check(["name is 'bad'", "python -m tuner resume runs/bad", "another name"])


@pytest.fixture
def check(
    tmp_path: Path,
    ray_address: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Check:
    """Runs ``tuner run e.yaml`` and looks at the one line that it must print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    monkeypatch.setattr(sys, "argv", ["tuner", "run", "e.yaml"])

    def check(parts: list[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            main()
        out, error = capfd.readouterr()
        assert stopped.value.code == 1, error
        lines = error.strip().splitlines()
        assert len(lines) == 1, error
        assert lines[0].startswith("error: ")
        for part in parts:
            assert part in lines[0], lines[0]
        assert "trial 0" not in out

    return check
