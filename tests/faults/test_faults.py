"""Ten faults, and a hundred spoilt files.

More of the first: ``python -m tests.faults``; of the second: ``python -m tests.faults.bad_input``.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from tests.faults.__main__ import line
from tests.faults.bad_input import Hangs, Spoilt, finding, limited, spoilt, warm_up
from tests.faults.injector import Injector
from tests.faults.schedule import FAULTS_A_RUN

pytestmark = pytest.mark.faults


@pytest.mark.timeout(600)
def test_ten_faults_cost_no_result(ray_address: str) -> None:
    """Two runs, on one rank and on two: a disk is filled, checkpoints spoilt, processes killed."""
    injector = Injector(ray_address)
    try:
        reports = [injector.run(seed, FAULTS_A_RUN) for seed in (2, 9)]
    finally:
        injector.close()
    print("\n".join(map(line, reports)))
    assert not [report.wrong for report in reports if report.wrong]
    assert all(report.compared for report in reports)
    struck = sum((report.struck for report in reports), Counter())
    assert struck.total() >= 8, "two at the most come too late, on a machine that is slow"
    assert all(report.kills for report in reports)
    assert {report.schedule.variant.ranks for report in reports} == {1, 2}


def test_a_hundred_spoilt_files_are_refused_in_a_line(tmp_path: Path) -> None:
    warm_up(tmp_path)

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=100, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(spoilt())
    def look(file: Spoilt) -> None:
        found = finding(file, tmp_path)
        assert not found, f"{file}: {found}"

    look()


def test_what_hangs_is_found_be_it_that_it_waits() -> None:
    """Even where an OSError would be caught; and the limit that there was before still holds."""
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(Hangs, match=r"more than 0\.1 s"), limited(0.1), suppress(Exception):
        time.sleep(20)
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert before - 20 < left <= before
    assert bool(left) == bool(before)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x80", b"a: " + b"[" * 5000, b'name: "\\e[31mred"', b"nam\xc3\xa9: x"]
)
def test_the_command_line_refuses_them_in_a_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "validate", "e.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: e.yaml")
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().isprintable()
