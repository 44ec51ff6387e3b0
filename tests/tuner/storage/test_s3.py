"""A whole run on an S3-compatible server: killed, resumed elsewhere, shown, asked."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import EXAMPLES, CommandLine
from trainables.checkpoint import DamagedCheckpointError
from tuner.experiment import load_experiment
from tuner.history import read_history
from tuner.run import start_run
from tuner.storage import checkpoint_at, local_folder
from tuner.storage.remote import Remote, open_remote

BUCKET = "bucket"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A prefix of a bucket on a server of this module's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Path(sys.executable).with_name("moto_server")
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
        )
    try:
        wait_for(port, process)
        place = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        bucket = open_remote(f"s3://{BUCKET}?{place}&allow_bucket_creation=true")
        bucket.filesystem.create_dir(BUCKET)
        yield f"s3://{BUCKET}/exps?{place}"
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server did not start"
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.25)
    raise AssertionError("the server does not answer")


def run_at(storage: str, name: str) -> str:
    return storage.replace("?", f"/{name}?")


def prepare(folder: Path, storage: str) -> None:
    """A folder with a Task and an experiment in it, as a user would have."""
    for name in ("toy_task.py", "guess_task.py", "every_kind.yaml"):
        (folder / name).write_text((EXAMPLES / name).read_text())
    values: dict[str, Any] = {
        "name": "run",
        "trainable": "guess_task:Guess",
        "search_space": "every_kind.yaml",
        "settings": {"sleep": 0.3},
        "search": {
            "algorithm": "asha", "metric": "loss", "mode": "min", "num_trials": 4, "max_epochs": 4,
            "reduction_factor": 2,
        },
        "resources": {"workers_per_trial": 1, "max_concurrent_trials": 1},
        "cache": {"dir": str(folder / "cache")},
        "storage": storage,
        "final": {"epochs": 2, "data": "train"},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(values))


def on_machine(tuner: CommandLine, home: Path) -> CommandLine:
    """The command line as it is on a machine that knows nothing of the run."""
    home.mkdir()
    return CommandLine(tuner.folder, {**tuner.env, "HOME": str(home)})


def brought(remote: Remote) -> list[dict[str, Any]]:
    parts = [remote.read(name) or b"" for name in sorted(remote.files("journal"))]
    return [json.loads(line) for part in parts for line in part.splitlines()]


def outcome(run: str | Path) -> Any:
    search = read_history(run).search
    trials = [
        (t.config, t.status, {epoch: metrics["loss"] for epoch, metrics in t.results.items()})
        for t in search.trials
    ]
    return trials, search.best.number if search.best else None


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_another_machine(
    storage: str, tuner_there: CommandLine, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to what an unbroken one on a disk does; then it is shown, reported and asked."""
    folder = tuner_there.folder
    prepare(folder, storage)
    run = run_at(storage, "run")
    remote = open_remote(run)
    here, there = (on_machine(tuner_there, folder / name) for name in ("here", "there"))

    process = here.start("run", "run.yaml")
    while sum(event["event"] == "result" for event in brought(remote)) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    killed = time.time()
    process.communicate()
    before = brought(remote)
    monkeypatch.setenv("HOME", str(folder / "here"))
    mirrored = (local_folder(run) / "journal.jsonl").read_text().splitlines()
    lost = [json.loads(line) for line in mirrored[len(before) :]]
    assert [json.loads(line) for line in mirrored[: len(before)]] == before
    assert all(event["time"] > killed - 3 for event in lost), "more than a moment is lost"

    shown = there("show", run)
    assert "run: running (asha)" in shown.stdout, shown.stderr
    resumed = there("resume", run)

    assert resumed.returncode == 0, resumed.stderr
    after = brought(remote)
    assert after[: len(before)] == before
    results = [(e["trial"], e["epoch"]) for e in after if e["event"] == "result"]
    assert set(Counter(results).values()) == {1}
    monkeypatch.setenv("HOME", str(folder / "third"))
    monkeypatch.chdir(folder)
    changes = {"storage": str(folder / "runs"), "settings.sleep": 0, "final": None}
    unbroken = start_run(load_experiment("run.yaml", changes), address=ray_address, folder=folder)
    assert outcome(run) == outcome(unbroken.folder)
    check_folder(remote)
    check_commands(on_machine(tuner_there, folder / "fourth"), run, remote)


def check_folder(remote: Remote) -> None:
    """All that a run's folder has on a disk, and no checkpoint that nothing names."""
    files = remote.files()
    assert {
        "experiment.yaml", "environment.json", "trials.csv", "report.html", "run.log",
        "best/config.yaml", "best/metrics.json", "best/model.json", "source/guess_task.py",
        "final/journal/000000000000.jsonl",
    } <= set(files)  # fmt: skip
    named = {
        path.removeprefix(f"{remote.path}/")
        for trial in read_history(remote.location).search.trials
        for path in trial.checkpoints.values()
    }
    found = {"/".join(name.split("/")[:2]) for name in files if "/checkpoint_" in name}
    assert {name for name in found if name.startswith("trial_")} == named
    assert any(name.startswith("trial_") and "/events.out.tfevents." in name for name in files)


def check_commands(tuner: CommandLine, run: str, remote: Remote) -> None:
    (tuner.folder / "numbers.json").write_text("[1.0, 2.0, 3.0, 4.0]")
    (tuner.folder / "guess_task.py").unlink()  # best/ has its own copy
    remote.delete("report.html")

    best = tuner("best", run)
    predicted = tuner("predict", run, "numbers.json")
    reported = tuner("report", run)
    listed = tuner("list", remote.location.replace("/run?", "?"))

    assert f"{remote.location.replace('/run?', '/run/best?')}" in best.stdout, best.stderr
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith("numbers.json\t")
    assert reported.returncode == 0, reported.stderr
    assert b"<html" in (remote.read("report.html") or b"")[:1000]
    assert listed.stdout.splitlines()[-1].split()[:2] == ["run", "finished"]


def test_a_bucket_that_is_not_there_is_told_before_anything_is_spent(
    storage: str, tuner: CommandLine
) -> None:
    prepare(tuner.folder, storage.replace(BUCKET, "nobucket"))
    done = tuner("run", "run.yaml")
    assert done.returncode == 1
    assert "error: storage is 's3://nobucket/exps/run?" in done.stderr
    assert "NO_SUCH_BUCKET" in done.stderr
    assert "dashboard" not in done.stdout


def test_a_checkpoint_that_is_gone_is_not_out_of_reach(storage: str) -> None:
    remote = open_remote(storage)
    with (
        pytest.raises(DamagedCheckpointError, match="is gone"),
        checkpoint_at(storage, f"{remote.path}/run/trial_0000/checkpoint_000000"),
    ):
        pass


def test_a_server_that_is_not_there_is_told(tuner: CommandLine) -> None:
    prepare(
        tuner.folder, "s3://bucket/exps?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    )
    done = tuner("run", "run.yaml")
    assert done.returncode == 1
    assert "cannot be read and written here" in done.stderr
    assert "the endpoint (AWS_ENDPOINT_URL)" in done.stderr
