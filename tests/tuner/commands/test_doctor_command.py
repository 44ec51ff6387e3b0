import os
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from tests.conftest import CommandLine
from tuner.commands import doctor as command
from tuner.commands.doctor import Check, doctor
from tuner.errors import UserError


def only(monkeypatch: pytest.MonkeyPatch, *kept: Check) -> None:
    """Have the doctor make these checks alone."""
    for name in [name for name in vars(command) if name.startswith("_check_")]:
        if getattr(command, name) not in kept:
            monkeypatch.setattr(command, name, lambda: iter(()))


def test_on_this_machine_everything_is_in_order(tuner: CommandLine) -> None:
    environment = {key: value for key, value in os.environ.items() if key == "RAY_ADDRESS"}
    assert not environment, "unset RAY_ADDRESS for the tests"

    done = tuner("doctor")

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert not [line for line in lines if line.startswith("fail")]
    for said in ("Python 3", "packages: ConfigSpace", "torch 2", "gloo: two processes", "cache "):
        assert any(line.startswith("ok") and said in line for line in lines), said
    assert "Traceback" not in done.stderr


def test_a_package_outside_the_bounds_fails_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "timm":
            raise PackageNotFoundError
        return "1.9.0" if name == "numpy" else real(name)

    real = command.version
    monkeypatch.setattr(command, "version", version)
    only(monkeypatch, command._check_packages)

    with pytest.raises(UserError, match="2 of these checks failed"):
        doctor(start_ray=False)

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert any(
        "numpy is 1.9.0, tuner needs" in line and "pip install 'numpy" in line for line in lines
    )
    assert any("timm is not installed; pip install 'timm" in line for line in lines)


def test_the_deprecated_pynvml_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "version", lambda _: "12.0.0")
    only(monkeypatch, command._check_pynvml)

    doctor(start_ray=False)

    assert capsys.readouterr().out.startswith("warn  the deprecated package pynvml 12.0.0")


def test_little_shared_memory_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = SimpleNamespace(total=64 * 2**20, free=0)
    monkeypatch.setattr(command.shutil, "disk_usage", lambda _: usage)
    only(monkeypatch, command._check_shared_memory)

    doctor(start_ray=False)

    assert "--shm-size" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    only(monkeypatch, command._check_cluster)

    with pytest.raises(UserError, match="1 of these checks failed"):
        doctor(start_ray=False)

    assert "RAY_ADDRESS is 127.0.0.1:1: no cluster answers" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_failure_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so is gone")

    broken.__name__ = "_check_gpus"
    only(monkeypatch, command._check_python)
    monkeypatch.setattr(command, "_check_gpus", broken)

    with pytest.raises(UserError):
        doctor(start_ray=False)

    out = capsys.readouterr().out
    assert out.startswith("ok    Python")
    assert "fail  gpus cannot be checked: ImportError: libcudart.so is gone" in out
