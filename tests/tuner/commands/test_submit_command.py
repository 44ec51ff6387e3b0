"""``tuner submit``: what is refused here, and what a job is told to do."""

import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import EXAMPLES
from tuner import jobs
from tuner.commands.submit import submit
from tuner.errors import UserError
from tuner.storage.remote import open_remote


class Cluster:
    """Takes a job, and keeps what it was asked for."""

    job: SimpleNamespace

    def get_address(self) -> str:
        return "http://head:8265"

    def submit_job(self, **asked: Any) -> str:
        self.job = SimpleNamespace(**asked)
        return str(asked["submission_id"])

    @property
    def command(self) -> list[str]:
        python, m, tuner, *arguments = shlex.split(self.job.entrypoint)
        assert [python, m, tuner] == ["python", "-m", "tuner"]
        return arguments


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(jobs, "connect", lambda _: cluster)
    return cluster


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an experiment and a Task."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "toy.yaml").write_text(
        f"{{name: toy, storage: {tmp_path}/runs, trainable: toy_task:Toy, "
        "search_space: every_kind.yaml, search: {metric: loss, mode: min}}"
    )
    for name in ("toy_task.py", "every_kind.yaml"):
        (folder / name).write_text((EXAMPLES / name).read_text())
    monkeypatch.chdir(folder)
    return folder


def test_a_job_is_told_to_run_what_was_checked_here(project: Path, cluster: Cluster) -> None:
    submit("toy.yaml", None, ["search.num_trials=3"], None, wait=False)
    assert cluster.command == ["run", "toy.yaml", "--set", "search.num_trials=3"]
    assert cluster.job.submission_id.startswith("toy-")
    assert cluster.job.metadata == {"run": "toy", "algorithm": "bohb", "metric": "loss (min)"}
    environment = cluster.job.runtime_env["env_vars"]
    assert environment == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    assert cluster.job.runtime_env["working_dir"] == str(project)


def test_no_two_jobs_have_the_same_id(project: Path, cluster: Cluster) -> None:  # noqa: ARG001
    ids = set()
    for _ in range(2):
        submit("toy.yaml", None, [], None, wait=False)
        ids.add(cluster.job.submission_id)
    assert len(ids) == 2


def test_data_are_read_where_they_are_and_do_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, photos: Path
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos.parent / "mine.yaml").write_text(
        f"{{name: mine, storage: {tmp_path}/runs, settings: {{data: photos, image_size: 32}}}}"
    )
    submit("mine.yaml", None, [], None, wait=False)
    assert cluster.command == ["run", "mine.yaml", "--set", f'settings.data="{photos}"']
    assert "/photos" in cluster.job.runtime_env["excludes"]
    submit("", "photos", [f"storage={tmp_path}"], None, wait=False)
    assert cluster.command == ["run", "--data", str(photos), "--set", f'storage="{tmp_path}"']
    assert "working_dir" not in cluster.job.runtime_env
    assert cluster.job.metadata["run"] == "photos"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    import numpy as np
    from PIL import Image

    folder = tmp_path / "here" / "photos"
    for number in range(12):
        place = folder / f"class_{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), number, np.uint8)).save(place / f"{number}.png")
    return folder


def test_a_storage_that_a_job_would_lose_is_refused(project: Path, cluster: Cluster) -> None:  # noqa: ARG001
    with pytest.raises(UserError) as refused:
        submit("toy.yaml", None, ["storage=./runs"], None, wait=False)
    assert str(refused.value).startswith("storage is './runs', which in a job is part of a copy")
    assert str(refused.value).endswith(f"--set storage={project / 'runs'}")


def test_what_cannot_run_is_refused_before_the_cluster_is_asked(
    project: Path,  # noqa: ARG001
    cluster: Cluster,
) -> None:
    with pytest.raises(UserError, match=r"unknown key search\.metrics; did you mean metric"):
        submit("toy.yaml", None, ["search.metrics=loss"], None, wait=False)
    with pytest.raises(UserError, match=r"search\.warm_start: nowhere is no run folder"):
        submit("toy.yaml", None, ["search.warm_start=[nowhere]"], None, wait=False)
    assert not hasattr(cluster, "job")


def test_what_only_the_cluster_can_see_is_left_to_the_job(
    project: Path,  # noqa: ARG001
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submit("toy.yaml", None, ["search.warm_start=[/elsewhere/toy]"], None, wait=False)
    assert capsys.readouterr().out.startswith("note: /elsewhere/toy is not on this machine, so the")
    assert cluster.command[-1] == 'search.warm_start=["/elsewhere/toy"]'


def test_a_run_is_resumed_wherever_it_is_seen(cluster: Cluster, tmp_path: Path) -> None:
    submit("/elsewhere/runs/toy", None, ["stop.time_budget=60"], None, wait=False)
    assert cluster.command == ["resume", "/elsewhere/runs/toy", "--set", "stop.time_budget=60"]
    assert cluster.job.metadata == {"run": "toy"}
    assert "working_dir" not in cluster.job.runtime_env
    submit("nosuch://bucket/runs/toy/", None, [], None, wait=False)
    assert cluster.command == ["resume", "nosuch://bucket/runs/toy/"]
    assert cluster.job.submission_id.startswith("toy-")
    with pytest.raises(UserError, match="is no run folder"):
        submit(str(tmp_path), None, [], None, wait=False)
    with pytest.raises(UserError, match="--data is 'digits', but /elsewhere/runs/toy is a run"):
        submit("/elsewhere/runs/toy", "digits", [], None, wait=False)


@pytest.fixture
def remote_run(experiment: Callable[..., Any], tmp_path: Path) -> str:
    """A run on object storage that this machine can read."""
    uri = f"memory://submit{tmp_path}/toy"
    remote = open_remote(uri)
    remote.write("experiment.yaml", experiment().model_dump_json().encode())  # JSON is YAML
    remote.write("journal/000000000000.jsonl", b'{"event":"session","time":1}\n')
    return uri


def test_what_the_users_task_imports_travels_with_a_run_on_object_storage(
    project: Path,
    cluster: Cluster,
    remote_run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(project.parent / "home"))
    submit(remote_run, None, [], None, wait=False)
    assert cluster.command == ["resume", remote_run]
    assert cluster.job.runtime_env["working_dir"] == str(project)
    assert cluster.job.metadata == {"run": "toy", "algorithm": "random", "metric": "loss (min)"}
    with pytest.raises(UserError, match=r"unknown key stop\.time; did you mean time_budget"):
        submit(remote_run, None, ["stop.time=60"], None, wait=False)
    assert "note:" not in capsys.readouterr().out
    submit("nosuch://bucket/runs/toy", None, [], None, wait=False)
    assert cluster.command == ["resume", "nosuch://bucket/runs/toy"]
    assert "working_dir" not in cluster.job.runtime_env
    note = capsys.readouterr().out.splitlines()[0]
    assert note.startswith("note: the job itself checks the run, for it cannot be read here: ")


def test_a_uri_with_credentials_goes_to_no_cluster(cluster: Cluster) -> None:
    with pytest.raises(UserError, match="so it must hold no credentials") as refused:
        submit("s3://KEY:SECRET@bucket/runs/toy", None, [], None, wait=False)
    assert "SECRET" not in str(refused.value)
    assert not hasattr(cluster, "job")


def test_how_to_follow_and_to_stop_is_said(
    project: Path,  # noqa: ARG001
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submit("toy.yaml", None, [], None, wait=False)
    job = cluster.job.submission_id
    assert capsys.readouterr().out.splitlines() == [
        f"submitted {job} to http://head:8265",
        f"Follow it with: python -m tuner logs {job} --follow --address http://head:8265",
        f"Stop it with: python -m tuner stop {job} --address http://head:8265",
    ]
