from typing import Any

from tuner.report.failures import group_failures
from tuner.search.trial import Status, Trial


def failed(number: int, kind: str, message: str, **more: Any) -> Trial:
    error = {"type": kind, "message": message, **more}
    return Trial(number, {}, "random", 1, status=Status.FAILED, error=error)


def test_failures_that_differ_in_numbers_alone_are_one_and_the_most_frequent_comes_first() -> None:
    groups = group_failures(
        [
            failed(0, "ValueError", "layers is 3"),
            failed(1, "RuntimeError", "needs 12.5 GiB at 0x7f3a\nand more", rank=1),
            Trial(2, {}, "random", 1, status=Status.COMPLETED),
            failed(3, "RuntimeError", "needs 8 GiB at 0x11", traceback="first"),
            failed(4, "RuntimeError", "needs 1e-3 GiB at 0xff", traceback="second"),
            failed(5, "RuntimeError", "layers is 3"),
        ]
    )

    assert [(g.type, g.pattern, [t.number for t in g.trials]) for g in groups] == [
        ("RuntimeError", "needs # GiB at #", [1, 3, 4]),
        ("ValueError", "layers is #", [0]),
        ("RuntimeError", "layers is #", [5]),
    ]
    assert [group.traceback for group in groups] == ["first", None, None]


def test_a_trial_that_was_taken_up_again_after_a_fault_has_not_failed() -> None:
    trial = failed(0, "ActorDiedError", "")
    trial.status = Status.COMPLETED

    assert group_failures([trial]) == []
