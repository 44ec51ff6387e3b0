"""The page in headless Chromium, without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tuner.report.records import record_of, two_slots
from tuner.report.run_page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FIGURES = 6
"""Curves, history, parallel coordinates, one slice, importances, slots."""


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_every_figure_is_drawn_offline(tmp_path: Path) -> None:
    write_report(record_of(two_slots()), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.count('class="plot"') == FIGURES

    shown = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000",
            f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip

    assert shown.count('class="user-select-none svg-container"') == FIGURES
    for label in ("epochs spent, over all trials", "seconds of the run", "best: trial 1"):
        assert f">{label}</text>" in shown
