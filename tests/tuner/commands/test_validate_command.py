"""``tuner validate``: what can be known wrong before Ray starts."""

from tests.conftest import CommandLine


def test_an_earlier_run_that_is_not_there_is_missed(tuner: CommandLine) -> None:
    done = tuner("validate", "quickstart", "--set", "search.warm_start=[nowhere]")
    assert done.returncode == 1
    assert done.stderr.startswith("error: search.warm_start: nowhere is no run folder")


def test_what_is_sound_is_said_to_be(tuner: CommandLine) -> None:
    done = tuner("validate", "quickstart", "--set", "search.initial=[{learning_rate: 0.002}]")
    assert (done.returncode, done.stdout) == (0, "quickstart: valid\n"), done.stderr
