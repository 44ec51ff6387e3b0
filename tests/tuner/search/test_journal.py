"""The journal: what is written stays, what was cut off goes."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.search.journal import Journal, read_journal


def test_events_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.append({"event": "halt", "number": number})
    with Journal(path) as journal:
        assert [event["number"] for event in journal.events] == [0, 1, 2]
        journal.append({"event": "halt", "number": 3})
    assert [event["number"] for event in read_journal(path)] == [0, 1, 2, 3]


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event":"halt","number":0}\n{"event":"ha')
    assert len(list(read_journal(path))) == 1
    with Journal(path) as journal:
        assert len(journal.events) == 1
        journal.append({"event": "halt", "number": 1})
    assert [event["number"] for event in read_journal(path)] == [0, 1]


@pytest.mark.parametrize("line", ["not json", "[1]", "{}"])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"event":"halt"}}\n{line}\n{{"event":"halt"}}\n')
    with pytest.raises(UserError, match=r"journal\.jsonl: line 2 is no"):
        list(read_journal(path))
