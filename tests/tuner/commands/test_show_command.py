import json
from pathlib import Path

from tests.conftest import CommandLine
from tests.tuner.commands.recorded_runs import cut_journal, record_run
from tuner.search.journal import JOURNAL


def test_trials_are_shown_best_first_below_the_summary(tuner: CommandLine, tmp_path: Path) -> None:
    search = record_run(tmp_path, "flowers")

    done = tuner("show", "flowers")

    head, _, table = done.stdout.partition("\n\n")
    assert head.startswith("flowers: finished (asha)\n12 trials (")
    assert search.best is not None
    assert f"best val_accuracy: {search.value(search.best.best_loss):.4f}" in head
    rows = [line.split() for line in table.splitlines()[1:]]
    assert len(rows) == 12
    values = [float(row[3]) for row in rows if row[1] != "failed"]
    assert values == sorted(values, reverse=True)
    assert rows[0][0] == str(search.best.number)
    assert rows[0][-1] == f"x={search.best.config['x']:.4g}"


def test_an_interrupted_run_is_shown_as_far_as_it_came(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    cut_journal(tmp_path / "flowers", 12)
    with (tmp_path / "flowers" / JOURNAL).open("a") as file:
        file.write('{"event":"res')  # cut off by the death of the process

    done = tuner("show", "flowers")

    assert done.returncode == 0
    assert done.stdout.startswith("flowers: interrupted (asha)\n")


def test_showing_a_run_changes_nothing_in_it(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    files = {path: path.read_bytes() for path in (tmp_path / "flowers").iterdir()}

    tuner("show", "flowers")

    assert {path: path.read_bytes() for path in (tmp_path / "flowers").iterdir()} == files


def test_failures_come_with_the_first_traceback(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers", num_trials=40)
    journal = tmp_path / "flowers" / JOURNAL
    lines = []
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "fail":
            event["error"] |= {"traceback": f"Traceback of trial {event['trial']}\n", "rank": 1}
        lines.append(json.dumps(event))
    journal.write_text("\n".join(lines) + "\n")

    done = tuner("show", "flowers", "--failures")

    table, _, traceback = done.stdout.partition("\n\n")
    failed = [line.split() for line in table.splitlines()[1:]]
    assert failed
    assert all(row[2] == "ValueError:" for row in failed)
    assert all(float(row[-1].removeprefix("x=")) > 0.9 for row in failed)
    first = failed[0][0]
    assert traceback == f"trial {first}, rank 1:\nTraceback of trial {first}\n"


def test_a_run_without_failures_says_so(tuner: CommandLine, tmp_path: Path) -> None:
    record_run(tmp_path, "flowers", evaluate=lambda _, epoch: epoch / 10)

    assert tuner("show", "flowers", "--failures").stdout == "no trial failed\n"


def test_json_holds_every_trial_with_its_results(tuner: CommandLine, tmp_path: Path) -> None:
    search = record_run(tmp_path, "flowers")

    shown = json.loads(tuner("show", "flowers", "--json").stdout)

    assert (shown["name"], shown["state"], shown["mode"]) == ("flowers", "finished", "max")
    assert search.best is not None
    assert shown["best_trial"] == search.best.number
    for trial, record in zip(search.trials, shown["trials"], strict=True):
        assert (record["number"], record["status"]) == (trial.number, str(trial.status))
        assert record["config"] == trial.config
        assert list(record["results"]) == [str(epoch) for epoch in trial.results]


def test_a_folder_that_is_no_run_is_named(tuner: CommandLine, tmp_path: Path) -> None:
    done = tuner("show", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is no run folder")
    assert "Traceback" not in done.stderr
