"""Files from a stranger run no code, lie where they belong, and tell no secret."""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from search_spaces import SpaceError, load_space
from tests.conftest import EXAMPLES, CommandLine
from tests.test_architecture import PACKAGES, ROOT, files
from trainables.checkpoint import REST, TENSORS, load_state, save_state
from tuner import load_model
from tuner.cli import app
from tuner.errors import UserError
from tuner.experiment import load_experiment, make_experiment, parse_override
from tuner.history import read_history
from tuner.run import resume_run
from tuner.trainable import kept_source

TOKEN = "4f9c-a-token-of-the-cluster-that-nobody-may-read"  # noqa: S105 - looked for in files


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A path at which nothing may have appeared in the end."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(path)))  # noqa: S301 - it works
    path.rmdir()
    yield path
    assert not path.exists(), "code from a file was run"


def yaml_of(canary: Path) -> str:
    return f"!!python/object/apply:os.mkdir ['{canary}']"


# -- what may not be called ---------------------------------------------------------------------

OURS = {
    ("tuner/search/tune_adapters.py", "pickle.loads"),
    ("tuner/commands/export.py", "torch.jit.load"),
}
"""Tune's note of an error, and a model: this process has written both a moment ago."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in [path for package in PACKAGES for path in files(package)]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(ROOT)), ast.unparse(node.func), node


def test_nothing_is_unpickled() -> None:
    forbidden = {
        *("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load"),
        *("marshal.loads", "shelve.open", "dill.load", "dill.loads", "pandas.read_pickle"),
        *("eval", "exec", "os.system", "torch.jit.load", "torch.hub.load", "pickle.Unpickler"),
    }
    found = {(place, name) for place, name, _ in calls() if name in forbidden}
    assert found == OURS


def test_torch_and_numpy_load_data_alone() -> None:
    loads = [(place, node) for place, name, node in calls() if name == "torch.load"]
    assert loads
    for place, node in loads:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options.get("weights_only") == "True", (place, node.lineno)
    for place, name, node in calls():
        if name in ("np.load", "numpy.load"):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False", (place, node.lineno)


def test_yaml_makes_plain_values_alone() -> None:
    """By safe_load, or by load with a class of ours that is a SafeLoader."""
    from search_spaces.loading import _Loader
    from tuner.experiment import _UniqueKeys

    assert issubclass(_Loader, yaml.SafeLoader)
    assert issubclass(_UniqueKeys, yaml.SafeLoader)
    for place, name, node in calls():
        if name in ("yaml.load", "yaml.load_all"):
            assert ast.unparse(node.args[1]) in ("_Loader", "_UniqueKeys"), (place, node.lineno)
        assert name not in ("yaml.unsafe_load", "yaml.full_load"), (place, node.lineno)


# -- experiments and spaces ---------------------------------------------------------------------


def test_an_experiment_makes_no_objects(canary: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(f"name: x\nsettings: {yaml_of(canary)}\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_experiment(tmp_path / "e.yaml")
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_override(f"settings.a={yaml_of(canary)}")


def test_a_space_makes_no_objects(canary: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"hyperparameters: {yaml_of(canary)}\n")
    with pytest.raises(SpaceError, match="is not valid YAML"):
        load_space("s.yaml", folder=tmp_path)


# -- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REST, TENSORS])
def test_a_checkpoint_is_not_unpickled(name: str, canary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_state({"epoch": 1, "task": {"w": torch.ones(2)}}, folder)
    torch.save(Canary(canary), folder / name)
    with pytest.raises(Exception, match=r"."):
        load_state(folder)
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(Exception, match=r"."):
        load_state(folder)


# -- run folders --------------------------------------------------------------------------------

PLANTED = (
    "tuner.pkl", "trainable.pkl", "error.pkl", "searcher-state-2026.pkl", ".tune_metadata",
    "search_gen_state-2026.json", "experiment_state-2026.json", "trial_0000/params.pkl",
    "trial_0000/error.pkl", "trial_0000/.tune_metadata", "trial_0001/error.pkl",
)  # fmt: skip
"""Names under which Ray Tune and Ray Train look for pickles."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Path:
    """A folder with a run in it that was stopped by its budget, by a user who has a token."""
    home = tmp_path_factory.mktemp("stranger")
    (home / "toy_task.py").write_text((EXAMPLES / "toy_task.py").read_text())
    values = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": {"hyperparameters": {"lr": {"type": "float", "lower": 0.01, "upper": 0.1}}},
        "search": {
            "algorithm": "random", "metric": "loss", "mode": "min",
            "num_trials": 2, "max_epochs": 2,
        },
        "cache": {"dir": str(home / "cache")},
    }  # fmt: skip
    (home / "toy.yaml").write_text(yaml.safe_dump(values))
    secret = {"RAY_AUTH_TOKEN": TOKEN, "WANDB_API_KEY": TOKEN, "AWS_SECRET_ACCESS_KEY": TOKEN}
    tuner = CommandLine(home, {"RAY_ADDRESS": ray_address, **secret})
    done = tuner("run", "toy.yaml")
    assert done.returncode == 0, done.stderr
    (home / "terminal.txt").write_text(done.stdout + done.stderr)
    return home


def test_tokens_are_not_written_down(run_folder: Path) -> None:
    """Neither in the journal, the report, the logs, environment.json, nor on the terminal."""
    read = [path for path in run_folder.rglob("*") if path.is_file()]
    assert {"journal.jsonl", "report.html", "environment.json", "run.log", "terminal.txt"} <= {
        path.name for path in read
    }
    assert not [path for path in read if TOKEN.encode() in path.read_bytes()]


def test_a_resumed_run_unpickles_nothing(
    run_folder: Path, canary: Path, tmp_path: Path, ray_address: str
) -> None:
    """Ray's own files, and a pickled checkpoint in the place of one of ours: which is refused."""
    home = tmp_path / "home"
    shutil.copytree(run_folder, home)
    run = home / "runs/toy"
    for name in PLANTED:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(pickle.dumps(Canary(canary)))
    lines = (run / "journal.jsonl").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if json.loads(line)["event"] == "checkpoint")
    (run / "journal.jsonl").write_text("\n".join(lines[: first + 1]) + "\n")
    saved = Path(json.loads(lines[first])["path"])
    checkpoint = run / "/".join(saved.parts[-2:])
    checkpoint.mkdir(parents=True, exist_ok=True)
    for name in ("_dict_checkpoint.pkl", REST, TENSORS, ".tune_metadata", ".metadata.json"):
        (checkpoint / name).write_bytes(pickle.dumps(Canary(canary)))
    assert checkpoint != saved
    tuner = CommandLine(home, {"RAY_ADDRESS": ray_address})

    resumed = tuner("resume", "runs/toy")

    assert not canary.exists()
    assert resumed.returncode == 0, resumed.stderr  # the trial began anew
    for command in ("show", "best", "report"):
        assert tuner(command, "runs/toy").returncode == 0, command


def test_reading_a_run_imports_nothing_of_it(
    canary: Path, run_folder: Path, tmp_path: Path
) -> None:
    """Commands that only look do not import the module that a run folder carries."""
    run = tmp_path / "toy"
    shutil.copytree(run_folder / "runs/toy", run)
    for module in (run / "source").iterdir():
        module.write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    read_history(run)
    for command in (["show"], ["report"], ["list"]):
        folder = str(tmp_path) if command == ["list"] else str(run)
        assert CliRunner().invoke(app, [*command, folder]).exit_code == 0
    assert kept_source("image_classification", run) is None
    assert kept_source("trainables.image_classification:ImageClassification", run) is None


@pytest.mark.parametrize(
    "content", [b"", b"- a", b"trainable: 3", b"trainable: null", b"trainable: \xff", b"config: {}"]
)
def test_a_folder_that_names_no_trainable_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"holds no model|trainable is "):
        load_model(tmp_path)


def test_a_model_folder_makes_no_objects(canary: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"trainable: {yaml_of(canary)}\n")
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)


# -- names and paths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/x", "..", ".", "", "~", "x\n", "x\0", "-x", "a\\b", "x" * 101]
)
def test_a_name_does_not_leave_the_storage(name: str) -> None:
    with pytest.raises(UserError, match=r"^the experiment: name is "):
        make_experiment({"name": name}, {})


@pytest.mark.parametrize(("place", "code"), [("mine", 1), ("trial_0000/checkpoint_000000", 0)])
def test_a_journal_names_no_file_outside_its_run(
    place: str, code: int, run_folder: Path, tmp_path: Path, ray_address: str
) -> None:
    """Checkpoints that a search needs no more are deleted, but not what is none of the run's.

    A name that is none of a checkpoint is refused; of another, what lies in the run is meant.
    """
    home, mine = tmp_path / "home", tmp_path / place
    shutil.copytree(run_folder, home)
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    journal = home / "runs/toy/journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    for event in events:
        if event["event"] == "checkpoint":
            event["path"] = str(mine)
    first = next(i for i, event in enumerate(events) if event["event"] == "checkpoint")
    journal.write_text("".join(json.dumps(event) + "\n" for event in events[: first + 1]))
    resumed = CommandLine(home, {"RAY_ADDRESS": ray_address})("resume", "runs/toy")
    assert resumed.returncode == code, resumed.stderr
    assert not code or "it was changed from outside" in resumed.stderr
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_link_out_of_a_run_folder_is_refused(run_folder: Path, tmp_path: Path) -> None:
    """A stranger's folder with a link to a file of the user's, in whose place it would write."""
    run, mine = tmp_path / "toy", tmp_path / "mine"
    mine.write_text("mine")
    for name in ("run.log", "best/metrics.json", "trial_0000"):
        shutil.copytree(run_folder / "runs/toy", run)
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
        with pytest.raises(UserError, match=f"{name} is a link to {mine}, outside of the run"):
            resume_run(run)
        shutil.rmtree(run)
    assert mine.read_text() == "mine"


def test_links_that_do_no_harm_are_none_to_refuse(run_folder: Path, tmp_path: Path) -> None:
    """Those of Weights & Biases to its logs, and one that leads in a circle."""
    run = tmp_path / "toy"
    shutil.copytree(run_folder / "runs/toy", run)
    (run / "wandb/run-1/logs").mkdir(parents=True)
    (run / "wandb/latest-run").symlink_to("run-1")
    (run / "wandb/run-1/logs/debug-core.log").symlink_to(tmp_path / "core.log")
    (run / "notes").symlink_to("notes")
    assert resume_run(run, address="127.0.0.1:1").best == run / "best"
