"""How paths are written for the user."""

from pathlib import Path

import pytest

from tuner.text import shown


def test_a_path_is_as_the_user_would_type_it_here(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path.cwd() / "runs" / "toy"
    assert shown(run) == "runs/toy"
    assert shown(Path("/shared/runs/toy")) == "/shared/runs/toy"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert shown(run) == str(run), "who reads a job's output is somewhere else"
