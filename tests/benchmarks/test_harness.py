"""Sides are run as processes, and what the benchmarks make of what they tell."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import __main__ as everything
from tests.benchmarks import efficiency, efficiency_tuner, end_to_end, scale, soak, start_up
from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    run_side,
    show_table,
    shown,
)
from tests.benchmarks.many_trials import marks
from tests.benchmarks.turnover import (
    OURS,
    RECIPE,
    SIDES,
    Cost,
    check_targets,
    gaps,
    read_ends,
    switches,
)


def test_a_side_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)nothing x ended with code 1; .*No module named"):
        run_side("nothing", "x")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"),
        ("x", "x"),
        (1234, "1,234"),
        (0.0612, "0.0612"),
        (12.0, "12.0"),
        (4321.6, "4,322"),
    ],
)
def test_cells_have_three_digits(cell: object, text: str) -> None:
    assert shown(cell) == text


def test_a_table_has_a_row_for_each_side() -> None:
    console = Console(width=60)
    with console.capture() as capture:
        show_table(console, "title", ("", "seconds"), {"ours": [0.5], "theirs": [None]})
    lines = capture.get().splitlines()
    assert any("ours" in line and "0.500" in line for line in lines)
    assert any("theirs" in line and "-" in line.split("theirs")[1] for line in lines)


def result(at: float, trial: int, epoch: int = 1, mb: float = 1.0) -> dict[str, object]:
    metrics = {"memory_mb": mb}
    return {"event": "result", "time": at, "trial": trial, "epoch": epoch, "metrics": metrics}


def test_turnover_reads_ends_and_switches() -> None:
    results: list[tuple[float, str | int, int]] = [
        (1.0, 0, 1), (2.0, 1, 1), (5.0, 0, 2), (5.5, 0, 3), (9.5, 1, 2), (10.0, 1, 3),
    ]  # fmt: skip
    assert read_ends(results, 2) == [5.5, 10.0]
    assert switches(results) == [3.0, 4.0]  # new trials and epochs that follow on are none
    with pytest.raises(BenchmarkError, match="1 of 2 trials"):
        read_ends(results[:4], 2)
    with pytest.raises(BenchmarkError, match="no trial was resumed"):
        switches(results[:2])


def test_turnover_says_who_is_ahead() -> None:
    ours = Cost(20, 10.0, 12.0, 0.1, 0.05, 0.04)
    costs = {RECIPE: Cost(3, 30.0, 90.0, 30.0, 30.0), "syne": Cost(3, 4.0, 9.0, 2.5, 2.5, 3.0)}
    costs[OURS] = ours
    assert gaps(costs) == [
        "Syne Tune, local backend: the first trial, with the start takes 4 s, ours 10 s"
    ]
    assert {met for by in check_targets(costs).values() for met in by.values()} == {True}
    costs[OURS] = Cost(20, 10.0, 9.0, -0.05, 0.05)
    targets = check_targets(costs)
    assert {by["by wall time"] for by in targets.values()} == {None}


def test_efficiency_is_of_the_time_after_the_start() -> None:
    events = [
        {"event": "start", "time": 10.0, "trial": 0},
        {**result(12.5, 0), "verdict": "pause"},
        {"event": "resume", "time": 12.6, "trial": 0},
        result(13.25, 0, 2),
    ]
    told = efficiency_tuner.read_times(events, started=2.0, slots=1)
    assert told == {
        "epochs": 2, "slots": 1, "pauses": 1, "resumes": 1,
        "training": 1.0, "search": 1.25, "start_up": 10.0,
    }  # fmt: skip
    assert efficiency.efficiency(told) == 0.8
    assert efficiency.efficiency({**told, "slots": 2}) == 0.4


def test_marks_are_of_every_tenth() -> None:
    events = [result(100.0 + number, number, mb=number) for number in range(20)]
    memory = [(99.0, 500.0), (110.0, 600.0), (118.5, 700.0)]
    found = marks(events, memory)
    assert [mark["trials"] for mark in found] == [1, *range(2, 21, 2)]
    assert [found[tenth]["driver_mb"] for tenth in (0, 6, 10)] == [500.0, 600.0, 700.0]
    assert found[10] == {"trials": 20, "seconds": 19.0, "driver_mb": 700.0, "ranks_mb": 14.5}
    row = scale.summarise(found)
    assert (row["ms_a_trial"], row["ms_at_the_end"]) == (1000.0, 1000.0)
    assert row["kb_a_trial"] == round(1024 * 200 / 19, 1)
    assert soak.growth(found, "driver_mb") == 0.4
    assert soak.kb_a_trial(found, "driver_mb") == round(1024 * 200 / 18, 1)


def test_what_a_trial_leaves_in_the_driver_is_a_target() -> None:
    row = {"ms_a_trial": 9.0, "ms_at_the_end": 9.0, "driver_mb": 300.0, "kb_a_trial": 51.0}
    met = scale.show_ray({100: row, 1000: {**row, "ms_a_trial": 10.0}}, Console(quiet=True))
    assert met == {
        "ms a trial with 1,000 <= 1.3 times that with 100": True,
        "KB a trial with 1,000 <= 50": False,
    }


def test_the_machine_is_described() -> None:
    machine = describe_machine("no-such-package")
    assert list(machine) == ["cores", "cpu", "memory", "os", "python", "torch", "ray"]
    assert all(machine.values())
    assert str(machine["memory"]).endswith(" GiB")


def test_every_side_of_turnover_is_there() -> None:
    for name, side in SIDES.items():
        assert (Path(everything.__file__).parent / f"turnover_{side.module or name}.py").is_file()


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    start_up.write_experiments(tmp_path)
    assert start_up.time_command(("validate", "misspelt.yaml"), tmp_path) > 0
    (tmp_path / "misspelt.yaml").write_text((tmp_path / "task.yaml").read_text())
    with pytest.raises(BenchmarkError, match=r"misspelt\.yaml failed"):
        start_up.time_command(("validate", "misspelt.yaml"), tmp_path)


def test_the_parts_of_a_start_add_up() -> None:
    assert start_up.parts([1.0, 2.5, 8.0, 8.25, 13.0]) == {
        "validated": 1.5, "Ray is up": 5.5, "first trial": 0.25, "first epoch": 4.75,
    }  # fmt: skip


def test_the_target_is_reached_by_the_first_that_is_as_good() -> None:
    assert end_to_end.reached([(9.0, 0.98), (4.0, 0.9), (6.0, 0.97)], 0.97) == 6.0
    assert end_to_end.reached([(9.0, 0.9)], 0.97) is None
    row = {"seconds": 5.0, "to_target": None}
    found = {name: dict(row) for name in end_to_end.SIDES}
    found["optuna"]["seconds"], found["tuner_1"]["seconds"] = 4.0, 3.0
    assert end_to_end.gaps(found) == [
        "Optuna, a plain torch loop: the whole search takes 4 s, tuner, 2 ranks 5 s"
    ]


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    text = everything.section(
        "a ...\nrow\n", ("tests.benchmarks.soak", "--trials=9"), 2.0, 7, ["x"]
    )
    assert "python -m tests.benchmarks.soak --trials=9" in text
    assert "Others used the machine" in text
    assert "a ..." not in text
    path = tmp_path / "BENCHMARKS.md"
    path.write_text(everything.join({"soak": text, "scale": "other"}))
    read = everything.read_sections(path.read_text())
    assert json.dumps({k: v.strip() for k, v in read.items()}) == json.dumps(
        {"soak": text.strip(), "scale": "other"}
    )
