import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.search.journal import Journal, is_open, read_journal

HOLD = """
import sys, time
from pathlib import Path
from tuner.search.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.append({"event": "session", "time": 1})
print("open", flush=True)
time.sleep(60)
"""


def test_while_one_process_has_the_journal_another_can_only_read_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        assert is_open(path)
        assert list(read_journal(path)) == [{"event": "session", "time": 1}]
        with pytest.raises(UserError, match="is being run by another process"):
            Journal(path)

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not is_open(path)
        with Journal(path) as journal:
            assert journal.events == [{"event": "session", "time": 1}]


def test_a_refused_opening_leaves_an_event_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path):
        path.write_text('{"event":"ses')
        with pytest.raises(UserError):
            Journal(path)
        assert path.read_text() == '{"event":"ses'


def test_a_closed_journal_can_be_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"event": "session", "time": 1})
    assert not is_open(path)
    with Journal(path) as journal:
        assert len(journal.events) == 1
