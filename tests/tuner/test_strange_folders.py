"""A run folder that somebody has forged or damaged: one line says so, and no terminal obeys it."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.tuner.commands.recorded_runs import open_search, record_run
from tuner.__main__ import main
from tuner.commands.ui import Dashboard
from tuner.errors import UserError
from tuner.experiment import load_experiment
from tuner.final import read_final
from tuner.history import read_history
from tuner.results import choose_best
from tuner.search.journal import JOURNAL, Journal, read_journal

ESCAPES = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\r\x08"
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 2**63, 10**400, 0.5, -1e308, float("nan"), float("inf")),
    *(
        "",
        "text",
        ESCAPES,
        "two\nlines",
        "\udcff",
        "\u202e",
        [],
        [1],
        {},
        {"a": 1},
        [[{}, 1, None]],
    ),
    {"trial": 0, "epochs": 3, "data": "train"},
    {"type": ESCAPES, "message": "", "traceback": f"a\n{ESCAPES}\nb"},
)
"""What takes the place of a value, or of a key."""
FILES = (JOURNAL, f"final/{JOURNAL}", "best/metrics.json", "test.json", "environment.json")
COMMANDS = (["show"], ["show", "--failures"], ["show", "--json"], ["best"])

Command = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a failure, checkpoints, a warm start, a final fit, a best model and its score."""
    storage = tmp_path_factory.mktemp("sound")
    search = record_run(storage, "run", num_trials=12, max_epochs=3)
    assert search.best is not None
    run, best = storage / "run", {"trial": search.best.number, "epoch": search.best.best_epoch}
    events = list(read_journal(run / JOURNAL))
    failure = {"type": "ValueError", "message": "x", "traceback": "a\nb", "rank": 0}
    of_first = {"time": 2.0, "trial": 0}
    config = events[1]["config"]
    learned = {"runs": ["r"], "results": [[config, 1, 0.5]], "first": [], "dropped": ["y"]}
    events[:0] = [{"event": "warm_start", "time": 1.0, **learned, "outside": 1}]
    kept = {"event": "checkpoint", "epoch": 1, "path": "trial_0000/checkpoint_000001", "bytes": 9}
    first = next(i for i, event in enumerate(events) if event["event"] == "result") + 1
    events[first:first] = [kept | of_first | {"trial": events[first - 1]["trial"]}]
    write_lines(run / JOURNAL, events)
    fit = {"trial": best["trial"], "epochs": 1, "data": "train"}
    end = {"event": "result", **of_first, "epoch": 1, "metrics": {"val_accuracy": 0.5}}
    fitted = [
        {"event": "session", "time": 1.0, "num_trials": 1, "slots": 1, "fit": fit},
        {"event": "start", **of_first, "config": config, "origin": "final", "bracket": 0}
        | {"target": 1, "slot": 0},
        {"event": "interrupt", **of_first, "error": failure},
        {"event": "restart", **of_first, "slot": 0},
        end | {"verdict": "complete"},
        {**kept, **of_first},
        {"event": "close", **of_first},
    ]
    (run / "final").mkdir()
    write_lines(run / "final" / JOURNAL, fitted)
    (run / "best").mkdir()
    origin = {**best, "final": True, "epochs": 1, "data": "train"}
    metrics = {"metrics": {"val_accuracy": 0.5}, "test": {"accuracy": 0.5}}
    (run / "best/metrics.json").write_text(json.dumps(origin | metrics))
    score = {"origin": origin, "metrics": {"accuracy": 0.5}, "error": None}
    (run / "test.json").write_text(json.dumps(score))
    known = {"command": ["tuner"], "git_commit": None, "packages": {"ray": "2"}}
    (run / "environment.json").write_text(json.dumps(known))
    return run


def write_lines(path: Path, events: list[Any]) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs tuner in this process: its exit code, and what it has printed, on either stream."""

    def run(arguments: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tuner", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def expect_one_line(code: int, out: str, err: str) -> None:
    """A success, or an error of one line; and nothing that a terminal obeys."""
    assert code in (0, 1), err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", out + err), ascii(out)
    assert (err[:7], err.count("\n")) == (("error: ", 1) if code else ("", 0)), err


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a value."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


def spoil(values: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Change one thing in what a file holds: drop it, double it, put or name it otherwise."""
    container, key = draw(st.sampled_from(places(values)))
    how = draw(st.sampled_from(["put", "put", "put", "drop", "double", "name"]))
    if how == "put":
        container[key] = draw(st.sampled_from(VALUES))
    elif how == "drop":
        container.pop(key)
    elif how == "double" and isinstance(container, list):
        container.insert(draw(st.integers(0, len(container))), container[key])
    elif how == "name" and isinstance(container, dict):
        container[draw(st.sampled_from([ESCAPES, "\udcff", "trial", "fit"]))] = container.pop(key)


@st.composite
def spoilt(draw: st.DrawFn, run: Path) -> tuple[str, str]:
    """One of the files, and what it holds now."""
    name = draw(st.sampled_from(FILES))
    lines = (run / name).read_text().splitlines()
    values = [json.loads(line) for line in lines]
    for _ in range(draw(st.integers(1, 2))):
        if values:
            spoil(values, draw)
    return name, "".join(json.dumps(value) + "\n" for value in values)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_sound_run_is_shown(words: list[str], sound: Path, run_command: Command) -> None:
    code, out, err = run_command([*words, str(sound)])
    assert (code, err) == (0, "")
    assert out


def test_what_a_folder_tells_is_printed_without_orders_to_the_terminal(
    sound: Path, run_command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    forged = {
        "type": f"Value{ESCAPES}Error",
        "message": f"bad{ESCAPES}",
        "traceback": "a\n\x1b[1mb",
    }
    events = list(read_journal(run / JOURNAL))
    for event in events:
        if event["event"] == "fail":
            event["error"] = forged
        if event["event"] == "start":
            event["config"] = {f"x{ESCAPES}": f"0.5\n{ESCAPES}"}
        if event["event"] == "result":
            event["metrics"][f"loss{ESCAPES}"] = 0.5
    write_lines(run / JOURNAL, events)
    metrics = json.loads((run / "best/metrics.json").read_text())
    metrics["test"] = {f"error{ESCAPES}": 0.25}
    (run / "best/metrics.json").write_text(json.dumps(metrics))

    told = {words[-1]: run_command([*words, str(run)]) for words in COMMANDS}

    for code, out, err in told.values():
        expect_one_line(code, out, err)
        assert code == 0
    assert "xred =0.5 red" in told["show"][1]
    assert "Valuered Error: badred" in told["--failures"][1]
    assert told["--failures"][1].endswith("\ntrial 1:\na\nb\n")
    assert "lossred" in told["best"][1]
    assert "errorred   0.25" in told["best"][1]


def drop_what_is_fitted(events: list[Any]) -> None:
    del events[0]["fit"]


def name_another_trial(events: list[Any]) -> None:
    events[0]["fit"]["trial"] = 99


def begin_another_trial(events: list[Any]) -> None:
    events.append(events[1] | {"trial": 1})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_what_is_fitted, "line 1 does not say what is fitted"),
        (name_another_trial, "line 1 names trial 99, which has no result"),
        (begin_another_trial, "tells of 2 trials, and a fit is one"),
    ],
)
def test_another_final_fit_is_refused(
    change: Callable[[list[Any]], None], said: str, sound: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    events = list(read_journal(run / "final" / JOURNAL))
    change(events)
    write_lines(run / "final" / JOURNAL, events)
    with pytest.raises(UserError, match=f"final/{JOURNAL}.* {said}; it was damaged"):
        read_final(run, read_history(run).search)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (("best/metrics.json", "[]"), "it holds list, not a mapping"),
        (("best/metrics.json", '{"trial": 1}'), "epoch must be there"),
        (("best/metrics.json", '{"trial": "1", "epoch": 1}'), "trial is '1', and it must be a"),
        (("test.json", '{"origin": {}, "metrics": [], "error": null}'), "metrics is [], and"),
        (("test.json", '{"origin": {}}'), "error and metrics must be there"),
        (("test.json", "no json"), "Expecting value"),
    ],
)
def test_a_file_beside_the_journal_is_named(
    file: tuple[str, str], said: str, sound: Path, run_command: Command, tmp_path: Path
) -> None:
    (name, text), run = file, tmp_path / "run"
    shutil.copytree(sound, run)
    (run / name).write_text(text)
    code, out, err = run_command(["best" if "metrics" in name else "show", str(run)])
    expect_one_line(code, out, err)
    assert code == 1
    assert f"{run / name}: {said}" in err


def each_spoilt(sound: Path, run: Path, examples: int, look: Callable[[], None]) -> None:
    """Call ``look`` with the run in as many states as asked for."""

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(spoilt(sound))
    def with_change(change: tuple[str, str]) -> None:
        name, text = change
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        (run / name).write_text(text)
        look()

    with_change()


def test_whatever_is_changed_in_a_file_is_borne_or_named(
    sound: Path, run_command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    codes: list[int] = []

    def look() -> None:
        for command in [*([*words, str(run)] for words in COMMANDS), ["list", str(tmp_path)]]:
            code, out, err = run_command(command)
            expect_one_line(code, out, err)
            codes.append(code)

    each_spoilt(sound, run, 100, look)
    assert codes.count(1) > 20
    assert codes.count(0) > 20


def test_a_page_and_the_dashboard_bear_it_too(
    sound: Path, run_command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def look() -> None:
        expect_one_line(*run_command(["report", str(run)]))
        with suppress(UserError):
            Dashboard([str(run)])

    each_spoilt(sound, run, 10, look)


def test_going_on_with_it_is_refused_or_possible(sound: Path, tmp_path: Path) -> None:
    """With the sampler and the rule of a run that is resumed, which a run that is shown has not."""
    run = tmp_path / "run"
    refused: list[str] = []

    def look() -> None:
        try:
            experiment = load_experiment(run / "experiment.yaml")
            with Journal(run / JOURNAL) as journal:
                search = open_search(experiment, journal)
            choose_best(search, read_final(run, search))
        except UserError as error:
            refused.append(str(error))

    each_spoilt(sound, run, 100, look)
    assert len(refused) > 20
