"""The journal: what is written stays, what was cut off goes."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.search.journal import Event, Journal, read_journal


def test_events_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.append({"event": "session", "time": number})
    with Journal(path) as journal:
        assert [event["time"] for event in journal.events] == [0, 1, 2]
        journal.append({"event": "session", "time": 3})
    assert [event["time"] for event in read_journal(path)] == [0, 1, 2, 3]


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event":"session","time":0}\n{"event":"ha')
    assert len(list(read_journal(path))) == 1
    with Journal(path) as journal:
        assert len(journal.events) == 1
        journal.append({"event": "session", "time": 1})
    assert [event["time"] for event in read_journal(path)] == [0, 1]


SESSION = '{"event":"session","time":1}'


def reading(line: str, folder: Path) -> list[Event]:
    """What comes back of the line, between two that are sound."""
    path = folder / "journal.jsonl"
    path.write_text(f"{SESSION}\n{line}\n{SESSION}\n")
    return list(read_journal(path))[1:-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "Expecting value"),
        ("[1]", "it holds list, not a mapping"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "event is None, and it must be one of session, "),
        ('{"event":["halt"]}', "event is ['halt'], and it must be"),
        ('{"event":"what","time":1}', "event is 'what', and it must be"),
        ('{"event":"halt","time":1}', "reason must be there"),
        ('{"event":"halt","time":NaN,"reason":""}', "time is nan, and it must be seconds since"),
        ('{"event":"halt","time":1e12,"reason":""}', "time is 1000000000000.0, and"),
        ('{"event":"halt","time":1,"reason":[]}', "reason is [], and it must be text"),
        ('{"event":"close","time":1,"trial":-1}', "trial is -1, and it must be a whole number"),
        ('{"event":"close","time":1,"trial":true}', "trial is True, and it must be"),
        ('{"event":"drop","time":1,"trial":0,"epochs":[1,"2"]}', "epochs is [1, '2'], and"),
        (
            '{"event":"checkpoint","time":1,"trial":0,"epoch":1,"path":"a\\u0000"}',
            "path is 'a\\x00', and it must be a path",
        ),
        ('{"event":"session","time":1,"slots":1000000}', "slots is 1000000, and it must be"),
        ('{"event":"session","time":1,"fit":{"trial":0}}', "it must be a mapping of trial, epochs"),
        (
            '{"event":"result","time":1,"trial":0,"epoch":1,"metrics":{"a":"1"},"verdict":null}',
            "metrics is {'a': '1'}, and it must be a mapping of names to numbers",
        ),
        (
            '{"event":"fail","time":1,"trial":0,"error":{"type":"E"}}',
            "error is {'type': 'E'}, and it must be a mapping with the texts type and message",
        ),
    ],
)
def test_a_damaged_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"journal\.jsonl: line 2 is no event") as caught:
        reading(line, tmp_path)
    assert said in str(caught.value)


def test_half_a_character_of_a_file_s_name_becomes_a_question_mark(tmp_path: Path) -> None:
    line = '{"event":"halt","time":1,"reason":"no \\udcff, \\ud83d\\ude00"}'
    assert reading(line, tmp_path)[0]["reason"] == "no ?, 😀"


def test_metrics_may_be_infinite_and_fields_unknown(tmp_path: Path) -> None:
    line = (
        '{"event":"result","time":1,"trial":0,"epoch":1,"verdict":null,"later":[],'
        '"metrics":{"a":NaN,"b":Infinity,"c":1000000000000000000000}}'
    )
    assert reading(line, tmp_path)[0]["metrics"].keys() == {"a", "b", "c"}


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        list(read_journal(tmp_path))
