"""A journal in segments is, wherever it breaks off, a beginning of the journal itself."""

import random
from pathlib import Path

import pytest

from tuner.storage.remote import Remote, open_remote
from tuner.storage.segments import SEGMENT_BYTES, Segments, assemble, segment_starts


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return open_remote(f"memory://segments{tmp_path}")


def there(remote: Remote, folder: str = "journal") -> dict[int, bytes]:
    return {int(Path(name).stem): remote.read(name) or b"" for name in remote.files(folder)}


def test_what_was_brought_is_the_journals_whole_lines(remote: Remote, tmp_path: Path) -> None:
    journal, draw = tmp_path / "journal.jsonl", random.Random(0)
    journal.touch()
    segments = Segments(remote, journal, "journal", 0)
    for _ in range(300):
        with journal.open("ab") as file:
            file.write(b"x" * draw.randrange(3000) + draw.choice([b"\n", b"\n", b""]))
        if draw.random() < 0.5:
            segments.bring()
            whole = journal.read_bytes()
            assert assemble(there(remote)) == whole[: whole.rfind(b"\n") + 1]
        if draw.random() < 0.05:  # another process goes on, from what is there
            segments = Segments(remote, journal, "journal", len(assemble(there(remote))))

    assert max(map(len, there(remote).values())) < 2 * SEGMENT_BYTES


def test_a_segment_that_begins_before_anothers_end_cuts_it_off() -> None:
    """That is what a driver left behind that did not yet know of its successor."""
    assert assemble({0: b"a\n", 2: b"late\nlater\n", 7: b"b\n"}) == b"a\nlate\nb\n"


def test_what_is_no_segment_does_not_count() -> None:
    others = [
        "journal/000000000007.jsonl.1f.partial",
        "journal/notes",
        "journal/7.jsonl",
        "journal",
    ]
    segment = "final/journal/000000000007.jsonl"
    assert segment_starts([*others, segment]) == {7: segment}


def test_a_segment_that_is_missing_is_told() -> None:
    with pytest.raises(ValueError, match="bytes 2 to 5 of the journal are missing"):
        assemble({0: b"a\n", 5: b"b\n"})
