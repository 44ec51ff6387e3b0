"""What a job is, what travels with it, and what is said of servers that do not take us."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import EXAMPLES
from tuner import jobs
from tuner.errors import UserError
from tuner.jobs import Job, check_size, connect, find_job, is_passing, travelling
from tuner.run import start_run

JOB = Job("toy-1", "toy", "succeeded", datetime.now(UTC), "", True, 0)


@pytest.mark.parametrize(
    ("state", "driver", "code"),
    [
        ("succeeded", 0, 0),
        ("failed", 3, 3),
        ("failed", -9, 137),
        ("failed", None, 1),
        ("stopped", None, 130),
    ],
)
def test_the_exit_code_is_the_drivers_where_it_is_known(
    state: str, driver: int | None, code: int
) -> None:
    assert replace(JOB, state=state, driver_exit_code=driver).exit_code == code


def test_the_last_job_of_a_run_is_found_and_any_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    again, driver = replace(JOB, id="toy-2"), replace(JOB, id="01", run="here", submitted=False)
    monkeypatch.setattr(jobs, "list_jobs", lambda _: [JOB, again, driver])
    client = Server("http://nowhere")
    assert find_job(client, "toy") == again
    assert find_job(client, "toy-1") == JOB
    with pytest.raises(UserError, match="no job at http://nowhere has the id or the run 'flowers'"):
        find_job(client, "flowers")
    with pytest.raises(UserError, match="run 'here' was not submitted"):
        find_job(client, "here")


class Server:
    """As much of Ray's client as tells where it is."""

    def __init__(self, url: str) -> None:
        self.get_address = lambda: url


# -- what travels ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder, of which a job needs two files."""
    for name in (
        "toy.yaml", "package/task.py", ".git/HEAD", ".venv/bin/python", ".env", "runs/toy/run.log",
        "package/__pycache__/task.pyc", "logs/events.out.tfevents.1.host", "flowers/rose/1.png",
        "ignored/notes.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".rayignore").write_text("ignored/\n")
    return tmp_path


def test_code_travels_but_no_results_caches_environments_or_data(project: Path) -> None:
    found = travelling(project, [*jobs.STAYS, "/flowers"])
    assert {str(path.relative_to(project)) for path in found} == {"toy.yaml", "package/task.py"}


def test_what_is_too_large_to_travel_is_named(project: Path) -> None:
    for name, megabytes in (("package/weights.bin", 90), ("flowers/rose/2.png", 20)):
        with (project / name).open("wb") as file:
            file.truncate(megabytes * 2**20)
    check_size(project, [*jobs.STAYS, "/flowers"])
    with pytest.raises(UserError) as refused:
        check_size(project, jobs.STAYS)
    assert "holds 110.0 MB, but Ray takes 100.0 MB" in str(refused.value)
    assert "the largest in it: package (90.0 MB), flowers (20.0 MB), " in str(refused.value)


def test_a_copy_of_a_working_directory_passes() -> None:
    copy = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/runs"  # noqa: S108
    assert is_passing(Path(copy))
    assert not is_passing(Path("/shared/runs"))


def test_a_job_does_not_begin_what_would_be_thrown_away(
    experiment: Callable[..., Any], tmp_path: Path
) -> None:
    storage = tmp_path / "working_dir_files" / "_ray_pkg_1" / "runs"
    with pytest.raises(UserError, match="which in this job is part of a copy that Ray throws away"):
        start_run(experiment(storage=str(storage)), folder=EXAMPLES)
    assert not storage.exists()


def test_in_a_job_a_run_is_gone_on_with_by_another_job(
    experiment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = experiment()
    there.folder.mkdir(parents=True)
    (there.folder / "journal.jsonl").write_text("{}\n")
    for variable, command in ((None, "resume"), ("RAY_JOB_CONFIG_JSON_ENV_VAR", "submit")):
        if variable:
            monkeypatch.setenv(variable, "{}")
        with pytest.raises(UserError, match=f"go on with python -m tuner {command} "):
            start_run(there, folder=EXAMPLES)


# -- the connection -------------------------------------------------------------------------------


class Dashboard(BaseHTTPRequestHandler):
    """Takes the one token, and remembers who has sent which."""

    mode = "token"
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        open_to_all = self.path == "/api/authentication_mode" or self.mode != "token"
        known = open_to_all or self.headers["Authorization"] == "Bearer right"
        answer = f'{{"authentication_mode": "{self.mode}", "ray_version": "2.60.0"}}'
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write((answer if known else "Forbidden").encode())

    def log_message(self, *_: Any) -> None:
        """Not a line a request."""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serves ``Dashboard``; the environment names neither an address nor a token."""
    for name in (*jobs.ADDRESSES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    handler = type("Handler", (Dashboard,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        server.handler, server.url = handler, f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("place", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
def test_the_token_is_found_where_ray_has_it(
    place: str, dashboard: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("right\n" if place != "RAY_AUTH_TOKEN" else "wrong")
    if place != "home":
        value = "right" if place == "RAY_AUTH_TOKEN" else str(file.rename(tmp_path / "token"))
        monkeypatch.setenv(place, value)
    client = connect(dashboard.url)
    assert client.get_address() == dashboard.url
    assert dashboard.handler.seen == [None, "Bearer right", "Bearer right"]


def test_no_token_goes_to_a_server_that_wants_none(
    dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.handler.mode = "disabled"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")  # which overrules Ray's own client
    assert connect(dashboard.url).get_address() == dashboard.url
    assert set(dashboard.handler.seen) == {None}


def test_the_address_may_be_in_the_environment(
    dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.handler.mode = "disabled"
    monkeypatch.setenv("RAY_ADDRESS", dashboard.url.removeprefix("http://"))
    assert connect(None).get_address() == dashboard.url


def test_what_is_wrong_with_a_token_is_said_without_it(
    dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"wants a token, and there is none in RAY_AUTH_TOKEN or ~"):
        connect(dashboard.url)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hidden")
    with pytest.raises(
        UserError, match="does not take the token: it must be the cluster's own"
    ) as e:
        connect(dashboard.url)
    assert "hidden" not in str(e.value)


@pytest.mark.usefixtures("dashboard")
def test_an_address_where_nobody_answers_is_named_with_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="no cluster is named: give the address of its dashboard"):
        connect(None)
    with pytest.raises(UserError, match=r"--address is http://127\.0\.0\.1:9: no dashboard of Ray"):
        connect("127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match=r"RAY_API_SERVER_ADDRESS is http://127\.0\.0\.1:9: no"):
        connect(None)
