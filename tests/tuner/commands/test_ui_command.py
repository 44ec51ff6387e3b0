import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.util import setup_testing_defaults

import pytest

from tests.conftest import CommandLine
from tests.tuner.commands.recorded_runs import cut_journal, record_run
from tuner.commands import ui as module
from tuner.commands.ui import Dashboard, ui
from tuner.errors import UserError
from tuner.search.journal import JOURNAL


def ask(dashboard: Dashboard, path: str, query: str = "") -> Any:
    """What the dashboard's own page would be answered."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    answered = []
    body = b"".join(dashboard(environ, lambda status, *_: answered.append(status)))
    assert answered == ["200 OK"], body
    return json.loads(body)


def test_each_run_is_a_study_with_its_trials(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    search = record_run(tmp_path, "flowers")
    record_run(tmp_path, "trees", algorithm="random")

    dashboard = Dashboard([tmp_path / "flowers", tmp_path / "trees"])

    studies = ask(dashboard, "/api/studies")["study_summaries"]
    assert [study["study_name"] for study in studies] == ["flowers", "trees"]
    shown = ask(dashboard, "/api/studies/0", "after=0")
    states = {"completed": "Complete", "stopped": "Pruned", "failed": "Fail"}
    assert [trial["state"] for trial in shown["trials"]] == [
        states[trial.status] for trial in search.trials
    ]


def test_what_is_new_in_a_run_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna_dashboard")
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", -1)
    record_run(tmp_path, "flowers")
    whole = (tmp_path / "flowers" / JOURNAL).read_bytes()
    cut_journal(tmp_path / "flowers", 12)
    dashboard = Dashboard([tmp_path / "flowers"])
    before = len(ask(dashboard, "/api/studies/0", "after=0")["trials"])

    (tmp_path / "flowers" / JOURNAL).write_bytes(whole)

    after = len(ask(dashboard, "/api/studies/0", "after=0")["trials"])
    assert (before < 12, after) == (True, 12)


def test_it_serves_until_it_is_interrupted(tuner: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    record_run(tmp_path, "flowers")
    process = tuner.start("ui", "flowers", "--port", 0)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with urlopen(address.replace("/dashboard/", "/api/studies")) as answer:  # noqa: S310
            (study,) = json.load(answer)["study_summaries"]
        assert study["study_name"] == "flowers"
        with urlopen(address) as answer:  # noqa: S310
            assert b"Optuna Dashboard" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    record_run(tmp_path, "flowers")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(UserError, match=rf"--port is {port}: .* give another, or 0"):
            ui([tmp_path / "flowers"], port)


def test_without_the_extra_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_run(tmp_path, "flowers")
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)

    with pytest.raises(UserError, match=r"pip install 'tuner\[ui\]'"):
        ui([tmp_path / "flowers"], 0)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        ui([tmp_path], 0)
