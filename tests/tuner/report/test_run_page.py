"""What the page of a run says, checked against runs whose events are written out."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from tests.tuner.report.pages import Page
from tests.tuner.report.records import (
    event,
    record_of,
    result,
    start,
    two_sessions,
    two_slots,
    write_run,
)
from tuner.history import State
from tuner.report import optuna_figures, own_figures
from tuner.report.record import Record, read_record
from tuner.report.run_page import write_report
from tuner.search.journal import Event


def page_of(record: Record, folder: Path) -> Page:
    write_report(record, folder / "report.html")
    return Page(folder / "report.html")


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return page_of(record_of(two_slots(), tmp_path), tmp_path)


def many(count: int) -> list[Event]:
    """Trials of one epoch, the loss of each its x."""
    draws = random.Random(0)
    events = [event(0, "session", num_trials=count, slots=1)]
    for number in range(count):
        x = draws.random()
        events += [
            start(number, number, 0, x),
            result(number + 0.5, number, 1, x, "complete"),
            event(number + 0.9, "close", number),
        ]
    return events


def test_the_summary_is_what_the_journal_adds_up_to(page: Page) -> None:
    facts = page.facts("Summary")

    assert facts.pop("time").startswith("40 s, from 2023-11-1")
    assert facts == {
        "state": "finished",
        "search": "asha, configurations by random",
        "metric": "loss (less is better)",
        "trials": "3 of 3: 2 completed, 1 failed",
        "epochs": "6, at most 3 a trial",
        "promotions": "1",
        "slots": "2, busy 91% of the time",
        "best": "0.3, trial 1 after epoch 3",
        "default configuration": "0.5000 (epoch 2); the best is 0.2000 ahead of it",
    }


def test_what_went_wrong_on_the_way_is_in_the_summary(tmp_path: Path) -> None:
    lost = {"type": "ActorDiedError", "message": "gone"}
    events = [
        event(0, "session", num_trials=4, slots=1),
        start(0, 0, 0, 0.25),
        result(1, 0, 1, 0.8, metrics={"oom_recoveries": 2}),
        event(2, "interrupt", 0, error=lost),
        event(3, "restart", 0, slot=0),
        event(4, "replace", 0, reason="memory"),
        event(5, "restart", 0, slot=0),
        result(6, 0, 2, 0.7, metrics={"oom_recoveries": 1}),
        event(7, "halt", reason="60 s are over"),
    ]

    facts = page_of(record_of(events, state=State.ENDED_EARLY), tmp_path).facts("Summary")

    assert facts["state"] == "ended early: 60 s are over"
    assert facts["processes lost"].startswith("1 ActorDiedError;")
    assert facts["processes replaced"].startswith("1, ")
    assert facts["out of memory"].startswith("3 times")


def test_the_final_fit_and_the_score_are_in_the_summary(tmp_path: Path) -> None:
    folder = write_run(tmp_path, two_slots())
    fit = {"trial": 1, "epochs": 1, "data": "train+val"}
    (folder / "final").mkdir()
    (folder / "final/journal.jsonl").write_text(
        "".join(
            json.dumps(line) + "\n"
            for line in (
                event(50, "session", num_trials=1, slots=1, fit=fit),
                start(50, 0, 0, 0.5, origin="final"),
                result(60, 0, 1, 0.125, "complete"),
                event(61, "close", 0),
            )
        )
    )
    origin = {"trial": 1, "epoch": 3, "final": True, "epochs": 1, "data": "train+val"}
    score = {"origin": origin, "metrics": {"accuracy": 0.75}, "error": None}
    (folder / "test.json").write_text(json.dumps(score))

    facts = page_of(read_record(folder), tmp_path).facts("Summary")

    assert facts["final fit"] == (
        "trial 1, 1 epochs on train+val: loss 0.1250, no estimate: it trained on that data"
    )
    assert facts["test"] == "accuracy 0.75"


def test_the_best_configuration_is_told_and_where_its_model_lies(tmp_path: Path) -> None:
    record = record_of(two_slots(), tmp_path)
    assert page_of(record, tmp_path).facts("Best configuration") == {"x": "0.5"}

    folder = record.history.folder / "best"
    folder.mkdir(parents=True)
    for held, told in ((3, f"Its model lies in {folder}."), (2, "still holds an earlier model")):
        (folder / "metrics.json").write_text(json.dumps({"trial": 1, "epoch": held}))
        assert told in page_of(record, tmp_path).section("Best configuration")


def test_curves_have_every_result_and_marks_where_trials_were_promoted_or_failed(
    tmp_path: Path,
) -> None:
    events = [*two_slots(), start(41, 3, 0, 0.7), result(42, 3, 1, 2.0)]
    error = {"type": "NotFinite", "message": "loss is nan"}
    page = page_of(record_of([*events, event(43, "fail", 3, error=error)]), tmp_path)

    traces = page.traces("Learning curves")

    points = {name: (trace["x"], trace["y"]) for name, trace in traces.items()}
    assert points == {
        "failed (1)": ([1, None], [2.0, None]),
        "default configuration": ([1, 2, 3, None], [0.8, 0.5, 0.6, None]),
        "best: trial 1": ([1, 2, 3, None], [0.9, 0.4, 0.3, None]),
        "promoted (1)": ([1], [0.9]),
        "failed here (1)": ([1], [2.0]),
    }
    assert traces["best: trial 1"]["hovertext"][1] == (
        "trial 1 (completed, by random)<br>epoch 2: <b>0.4</b><br>x=0.5"
    )
    assert "1 failed before their first result" in page.section("Learning curves")


def test_a_trial_that_waits_at_a_rung_is_marked_there(tmp_path: Path) -> None:
    page = page_of(record_of(two_slots()[:6], state=State.RUNNING), tmp_path)

    traces = page.traces("Learning curves")

    assert (traces["paused (1)"]["x"], traces["paused (1)"]["y"]) == ([1], [0.9])
    assert "The run was under way" in page.section("Summary")


def test_the_history_counts_epochs_of_all_trials(page: Page) -> None:
    traces = page.traces("Optimisation history")

    points = {name: (trace["x"], trace["y"]) for name, trace in traces.items()}
    assert points == {
        "default": ([2, 3, 5], [0.8, 0.5, 0.6]),
        "random": ([1, 4, 6], [0.9, 0.4, 0.3]),
        "best so far": ([1, 2, 3, 4, 6, 6], [0.9, 0.8, 0.5, 0.4, 0.3, 0.3]),
        "default's best": ([None], [None]),
    }
    (figure,) = page.figures("Optimisation history")
    assert figure["layout"]["shapes"][0]["y0"] == 0.5
    assert figure["layout"]["xaxis"]["title"]["text"] == "epochs spent, over all trials"


def test_slots_show_who_held_them_when(page: Page) -> None:
    traces = page.traces("Slots")

    bars = {
        name: list(zip(trace["y"], trace["text"], trace["base"], trace["x"], strict=True))
        for name, trace in traces.items()
    }
    assert bars == {
        "completed (2)": [("slot 0", "0", 0, 33), ("slot 1", "1", 20, 20)],
        "paused (1)": [("slot 1", "1", 0, 10)],
        "failed (1)": [("slot 1", "2", 10, 10)],
    }
    assert "Trials held a slot 91.2% of the time." in page.section("Slots")


def test_sessions_are_told_apart_with_the_time_between_them(tmp_path: Path) -> None:
    page = page_of(record_of(two_sessions(), num_trials=1), tmp_path)

    (figure,) = page.figures("Slots")
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["session 2"]
    assert figure["layout"]["annotations"][0]["x"] == 10
    assert "the time between is left out (1 min 40 s)" in page.section("Slots")
    assert page.facts("Summary")["time"].startswith("20 s, in 2 sessions, from ")


def test_failures_are_grouped_with_the_first_traceback(page: Page) -> None:
    assert page.rows("Failures") == [["1", "ValueError", "x is #", "2"]]
    assert "<pre>Traceback of trial 2</pre>" in page.section("Failures")


def test_importances_compare_trials_at_one_epoch(tmp_path: Path) -> None:
    page = page_of(record_of(many(40), num_trials=40), tmp_path)

    (figure,) = page.figures("Importances")
    assert figure["data"][0]["y"] == ["x"]
    assert "from 40 trials, all at epoch 1" in page.section("Importances")


def test_the_epoch_to_compare_at_is_the_last_that_enough_have_reached() -> None:
    reach = {1: 100, 3: 30, 9: 10}
    trials = record_of(many(100)).history.search.trials
    for trial in trials:
        trial.results = {e: {"loss": 1.0} for e, count in reach.items() if trial.number < count}

    assert optuna_figures.comparable_epoch(trials) == 3
    assert optuna_figures.comparable_epoch(trials[:12]) == 1  # too few for any


def test_of_very_many_trials_some_are_shown_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_figures, "MOST_CURVES", 10)
    monkeypatch.setattr(optuna_figures, "MOST_LINES", 10)
    monkeypatch.setattr(optuna_figures, "MOST_POINTS", 20)

    page = page_of(record_of(many(40), num_trials=40), tmp_path)

    told = "the best, and evenly down to the worst"
    assert f"Of 40 trials, 10 curves are shown: {told}" in page.section("Learning curves")
    assert f"Of 40 trials, 10 lines are shown: {told}" in page.section("Parallel coordinates")
    assert f"Of 40 trials, 20 points are shown: {told}" in page.section("Slices")
    (slices,) = page.figures("Slices")
    losses = sorted(e["metrics"]["loss"] for e in many(40) if e["event"] == "result")
    best, *_, last = sorted(slices["data"][0]["x"])
    assert (best, last) == (losses[0], losses[38])


def test_2000_trials_take_a_page_of_bounded_size(tmp_path: Path) -> None:
    began = time.perf_counter()
    page = page_of(record_of(many(2000), num_trials=2000), tmp_path)
    print(f"{time.perf_counter() - began:.1f} s, {len(page.text) / 1e6:.1f} MB")

    assert len(page.figures("Optimisation history")[0]["data"][0]["x"]) == 2000
    assert len(page.figures("Parallel coordinates")[0]["data"]) == optuna_figures.MOST_LINES + 1
    assert len(page.text) - len(get_plotlyjs()) < 1e6


def test_far_worse_results_do_not_press_the_others_into_a_line(tmp_path: Path) -> None:
    events = many(40)
    events[2]["metrics"]["loss"] = 1e9

    page = page_of(record_of(events, num_trials=40), tmp_path)

    (figure,) = page.figures("Optimisation history")
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < 0.05
    assert 0.9 < high < 2
    assert "A few results are far worse" in page.section("Optimisation history")


@pytest.mark.parametrize("events", [[], [event(0, "session", num_trials=3, slots=2)]])
def test_an_empty_run_has_a_page_that_says_what_is_not_there(
    events: list[Event], tmp_path: Path
) -> None:
    page = page_of(record_of(events, state=State.INTERRUPTED), tmp_path)

    assert page.facts("Summary")["trials"] == "0 of 3"
    for heading in ("Best configuration", "Learning curves", "Optimisation history", "Slices"):
        assert "No trial has a result yet." in page.section(heading), heading
    for heading in ("Parallel coordinates", "Importances", "Slots"):
        assert "No trial has" in page.section(heading), heading
    assert "No trial failed." in page.section("Failures")
    assert "could not be drawn" not in page.text.replace("\n", " ")
    assert "python -m tuner resume " in page.section("How to go on")


def test_a_run_whose_trials_all_failed_has_a_page(tmp_path: Path) -> None:
    error = {"type": "ValueError", "message": "no"}
    events = [event(0, "session", num_trials=1, slots=1), start(0, 0, 0, 0.25)]
    events += [event(5, "fail", 0, error=error)]

    page = page_of(record_of(events, num_trials=1), tmp_path)

    assert page.facts("Summary")["trials"] == "1 of 1: 1 failed"
    assert page.rows("Failures") == [["1", "ValueError", "no", "0"]]
    assert "(there is no traceback)" in page.section("Failures")
    assert len(page.figures("Slots")) == 1
    assert "could not be drawn" not in page.text.replace("\n", " ")


def test_a_figure_that_fails_costs_the_page_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("another version of Optuna")

    monkeypatch.setattr(optuna_figures.optuna.visualization, "plot_slice", fail)

    page = page_of(record_of(two_slots()), tmp_path)

    assert "RuntimeError: another version of Optuna" in page.section("Slices")
    assert len(page.figures("Parallel coordinates")) == 1


def test_the_environment_and_the_commands_to_go_on_with_are_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path, two_slots())
    known = {
        "command": ["/somewhere/tuner/__main__.py", "run", "a b.yaml"],
        "python": "3.11.7",
        "packages": {"torch": "2.14.1"},
        "git_commit": "abc123",
    }
    (folder / "environment.json").write_text(json.dumps(known))
    (folder / "git.diff").write_text("+")
    (folder / "best").mkdir()
    (folder / "best/labels.json").write_text("{}")

    page = page_of(read_record(folder), tmp_path)

    assert page.facts("Environment") == {
        "command": "python -m tuner run 'a b.yaml'",
        "git commit": "abc123, with changes, which are in git.diff",
        "python": "3.11.7",
        "torch": "2.14.1",
    }
    for command in ("show", "tensorboard", "ui", "predict"):
        assert f"python -m tuner {command} {folder}" in page.section("How to go on")
    assert "resume" not in page.section("How to go on")


NASTY = '<script>alert(1)</script><img src="http://x.example/y" onerror=alert(1)>'


@pytest.fixture
def nasty(tmp_path: Path) -> Page:
    """A run in which everything that can be named has a name that is HTML."""
    space = {
        "hyperparameters": {
            NASTY: {"type": "categorical", "choices": [NASTY, "b"]},
            "x": {"type": "float", "lower": 0.0, "upper": 1.0},
        }
    }
    events = two_slots()
    for number, line in enumerate(events):
        if line["event"] == "start":
            line["config"][NASTY] = NASTY if number % 2 else "b"
        if line["event"] == "result":
            line["metrics"] = {NASTY: line["metrics"]["loss"]}
        if line["event"] == "fail":
            line["error"] = dict.fromkeys(("type", "message", "traceback"), NASTY)
    return page_of(record_of(events, space=space, metric=NASTY), tmp_path)


def test_what_users_name_is_text_whatever_it_looks_like(nasty: Page) -> None:
    tags = [tag for tag, _ in nasty.tags()]

    assert "img" not in tags
    assert tags.count("script") == len(nasty.figures("Slices")) + 7
    assert not any(name.startswith("on") for _, attributes in nasty.tags() for name in attributes)
    assert NASTY in nasty.facts("Best configuration")
    assert "could not be drawn" not in nasty.text.replace("\n", " ")


def test_the_page_loads_nothing_from_anywhere(nasty: Page) -> None:
    for tag, attributes in nasty.tags():
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert nasty.text.count("plotly.js v") == 1
