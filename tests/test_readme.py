"""Every command of the README, in its order, on real files."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SERVES = re.compile(r"-m tuner (tensorboard|ui) ")
NOT_HERE = (".venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest -n 2",)  # this suite


def commands() -> list[str]:
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if line not in NOT_HERE]


def as_run_here(command: str) -> str:
    """Without the installation, and with this interpreter."""
    command = command.rpartition("pip install -e . && ")[2]
    return re.sub(r"(\.venv/bin/)?python -m", f"{shlex.quote(sys.executable)} -m", command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as photographs in folders, with a file among them that is no image."""
    folder = tmp_path_factory.mktemp("readme")
    images, labels = load_digits(return_X_y=True)
    for number, (pixels, label) in enumerate(zip(images[:300], labels[:300], strict=True)):
        place = folder / "photos" / f"digit_{label}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8))
        image.resize((40, 40)).save(place / f"{number}.png")
    (folder / "photos" / "digit_3" / "notes.txt").write_text("no image")
    (folder / "photos" / "digit_3" / "broken.png").write_bytes(b"no image either")
    Image.fromarray((images[0].reshape(8, 8) * 15.9).astype(np.uint8)).save(folder / "digit.png")
    return folder


def test_the_readme_names_the_main_job_and_every_command() -> None:
    assert commands()[0].endswith(".venv/bin/python -m tuner run")
    listed = subprocess.run(
        [sys.executable, "-m", "tuner", "--help"], capture_output=True, text=True, check=True
    ).stdout
    names = set(re.findall(r"^\W*│ (\w+) ", listed, re.MULTILINE))
    assert {"run", "resume", "doctor", "predict"} <= names
    assert not [name for name in names if not re.search(rf"-m tuner {name}\b", README)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", [c for c in commands() if not SERVES.search(c)])
def test_the_command_runs(command: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", as_run_here(command)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if command.endswith("tuner run"):
        check_quickstart(done.stdout, folder)
    if command.endswith("digit.png"):
        path, label, probability = done.stdout.split()
        assert (path, label) == ("digit.png", "0")
        assert float(probability) > 0.5
    if "--data photos" in command:
        assert "4 trials" in done.stdout
        labels = (folder / "runs/photos/best/labels.json").read_text()
        assert "digit_3" in labels


@pytest.mark.parametrize("command", [c for c in commands() if SERVES.search(c)])
def test_the_command_serves_until_it_is_interrupted(command: str, folder: Path) -> None:
    command = as_run_here(f"{command} --port 0")
    with subprocess.Popen(
        shlex.split(command), cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)))
        with urlopen(url[0]) as answer:  # noqa: S310 - our own address
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)


def check_quickstart(out: str, folder: Path) -> None:
    """What the first command promises: 12 trials or more, on warm ranks, at 0.95 or better."""
    trials, accuracy = (
        re.search(r"(\d+) trials \(", out),
        re.search(r"best val_accuracy: (\S+),", out),
    )
    assert int(trials[1]) >= 12
    assert float(accuracy[1]) >= 0.95
    assert "trial actors started: 1, slots: 1" in out
    assert "0 exceptions swallowed" in out
    share = re.search(r"logging: (\S+) % of the trials' time", out)
    assert float(share[1]) <= 10, "2 % are meant, and this machine may be busy"
    assert (folder / "runs/quickstart/best/model.safetensors").exists()


def test_the_python_of_the_readme_runs(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'0'" in done.stdout
