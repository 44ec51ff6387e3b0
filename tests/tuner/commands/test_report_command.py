import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import EXAMPLES, CommandLine
from tests.tuner.commands.recorded_runs import cut_journal, describe_run, open_search, record_run
from tests.tuner.report.pages import Page
from tuner.callbacks.console import Console
from tuner.commands.report import report
from tuner.errors import UserError
from tuner.experiment import Resources
from tuner.history import State, read_history
from tuner.report import run_page
from tuner.run import _Run, resume_run
from tuner.search.journal import JOURNAL, Journal
from tuner.storage import Kept


def test_the_page_of_a_run_is_written_into_its_folder(tuner: CommandLine, tmp_path: Path) -> None:
    search = record_run(tmp_path, "flowers")

    done = tuner("report", "flowers")

    assert (done.returncode, done.stdout) == (0, "flowers/report.html\n")
    best = Page(tmp_path / "flowers/report.html").facts("Summary")["best"]
    assert search.best is not None
    assert best.endswith(f"trial {search.best.number} after epoch {search.best.best_epoch}")


def test_several_runs_are_compared_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_run(tmp_path, "flowers")
    record_run(tmp_path, "trees", algorithm="random")
    monkeypatch.chdir(tmp_path)

    report([Path("flowers"), Path("trees"), Path("flowers")], None)

    assert capsys.readouterr().out == "report.html\n"
    assert [row[0] for row in Page(tmp_path / "report.html").rows("Runs")] == ["flowers", "trees"]
    assert not (tmp_path / "flowers/report.html").exists()


def test_the_page_is_written_where_output_says(tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")

    report([tmp_path / "flowers"], tmp_path / "other.html")

    assert Page(tmp_path / "other.html").facts("Summary")["state"] == "finished"
    assert not (tmp_path / "flowers/report.html").exists()


def test_a_run_under_way_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    cut_journal(tmp_path / "flowers", 12)

    with Journal(tmp_path / "flowers" / JOURNAL):
        report([tmp_path / "flowers"], None)

    page = Page(tmp_path / "flowers/report.html")
    assert page.facts("Summary")["state"] == "running"
    assert "The run was under way" in page.section("Summary")


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    folder = describe_run(tmp_path, "flowers").folder
    (folder / JOURNAL).touch()

    report([folder], None)

    assert Page(folder / "report.html").facts("Summary")["trials"] == "0 of 12"


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")

    with pytest.raises(UserError, match="is no run folder"):
        report([tmp_path / "flowers", tmp_path], None)
    with pytest.raises(UserError, match=r"no/where\.html cannot be written .*--output FILE"):
        report([tmp_path / "flowers"], tmp_path / "no/where.html")


def test_a_run_leaves_a_report_at_its_end(tmp_path: Path) -> None:
    """One that is over is ended again by resume, with no need of a cluster."""
    record_run(tmp_path, "flowers")
    folder = tmp_path / "flowers"
    described = folder / "experiment.yaml"
    described.write_text(described.read_text().replace("task:Task", "plain_trainable:Curve"))
    (folder / "source").mkdir()
    shutil.copy(EXAMPLES / "plain_trainable.py", folder / "source")

    resume_run(folder, address="127.0.0.1:1")

    page = Page(folder / "report.html")
    assert page.facts("Summary")["state"] == "finished"
    assert "Its model lies in" in page.section("Best configuration")


def run_of(folder: Path, terminal: io.StringIO) -> _Run:
    """A run that is still to come to its end, with its journal open."""
    experiment: Any = read_history(folder).experiment
    search = open_search(experiment, Journal(folder / JOURNAL))
    trainable: Any = SimpleNamespace(bundles=Resources.bundles)
    console, kept = Console(terminal), Kept(folder)
    return _Run(
        experiment, trainable, search, kept, console, searched=True, test=False, grows=False
    )


def test_at_its_end_the_run_knows_its_state_though_its_journal_is_open(tmp_path: Path) -> None:
    record_run(tmp_path, "flowers")
    terminal = io.StringIO()

    run_of(tmp_path / "flowers", terminal).report(State.INTERRUPTED)

    page = Page(tmp_path / "flowers/report.html")
    assert page.facts("Summary")["state"] == "interrupted"
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("error", [RuntimeError("no room"), KeyboardInterrupt("no room")])
def test_a_report_that_fails_is_a_note_and_no_end_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    record_run(tmp_path, "flowers")
    monkeypatch.setattr(run_page, "write_report", fail)
    terminal = io.StringIO()

    run_of(tmp_path / "flowers", terminal).report(State.FINISHED)

    assert f"no report ({type(error).__name__}: no room)" in terminal.getvalue()
    assert "python -m tuner report" in terminal.getvalue()
    assert not (tmp_path / "flowers/report.html").exists()
