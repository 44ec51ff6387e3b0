from pathlib import Path

import pytest

from tests.tuner.report.pages import Page
from tests.tuner.report.records import record_of, two_sessions, two_slots
from tuner.errors import UserError
from tuner.report.comparison import name_runs, write_comparison
from tuner.report.record import Record


@pytest.fixture
def records() -> list[Record]:
    return [
        record_of(two_slots(), name="one", num_trials=3),
        record_of(two_sessions(), name="other", algorithm="bohb", num_trials=1),
        record_of([], name="empty", num_trials=3),
    ]


@pytest.fixture
def page(records: list[Record], tmp_path: Path) -> Page:
    write_comparison(records, tmp_path / "report.html")
    return Page(tmp_path / "report.html")


def test_each_run_has_a_row_with_its_best_and_what_it_took(page: Page) -> None:
    assert page.rows("Runs") == [
        ["one", "finished", "asha, random", "3", "6", "40 s", "91%", "0.3", "1", "x=0.5"],
        ["other", "finished", "bohb, kde", "1", "2", "20 s", "90%", "0.6", "0", "x=0.25"],
        ["empty", "finished", "asha, random", "0", "0", "0 s", "", "", "", ""],
    ]


def test_the_best_so_far_is_drawn_against_epochs_and_against_seconds(page: Page) -> None:
    def points(heading: str) -> dict[str, tuple[list[float], list[float]]]:
        return {name: (t["x"], t["y"]) for name, t in page.traces(heading).items()}

    values = [0.9, 0.8, 0.5, 0.4, 0.3, 0.3]
    assert points("Best by epochs") == {
        "one": ([1, 2, 3, 4, 6, 6], values),
        "other": ([1, 2, 2], [0.8, 0.6, 0.6]),
    }
    assert points("Best by time") == {
        "one": ([10, 12, 22, 30, 40, 40], values),
        "other": ([10, 20, 20], [0.8, 0.6, 0.6]),
    }


def test_what_the_experiments_say_differently_is_told(page: Page) -> None:
    assert page.rows("What differs") == [
        ["search.algorithm", "asha", "bohb", "asha"],
        ["search.num_trials", "3", "1", "3"],
    ]


def test_runs_of_other_metrics_or_modes_are_refused(tmp_path: Path) -> None:
    records = [record_of([], name="one"), record_of([], name="other", mode="max")]

    with pytest.raises(UserError, match=r"one has loss \(min\), other has loss \(max\); .* share"):
        write_comparison(records, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    records = [record_of([], tmp_path / "a"), record_of([], tmp_path / "b")]

    assert name_runs([*records, record_of([], name="c")]) == [
        str(tmp_path / "a/run"), str(tmp_path / "b/run"), "c",
    ]  # fmt: skip
