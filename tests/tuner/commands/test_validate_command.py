"""``tuner validate``: what can be known wrong before Ray starts."""

import pytest

from tests.conftest import CommandLine


def test_an_earlier_run_that_is_not_there_is_missed(tuner_here: CommandLine) -> None:
    done = tuner_here("validate", "quickstart", "--set", "search.warm_start=[nowhere]")
    assert done.returncode == 1
    assert done.stderr.startswith("error: search.warm_start: nowhere is no run folder")


def test_what_is_sound_is_said_to_be(tuner_here: CommandLine) -> None:
    done = tuner_here("validate", "quickstart", "--set", "search.initial=[{learning_rate: 0.002}]")
    assert (done.returncode, done.stdout) == (0, "quickstart: valid\n"), done.stderr


def test_a_setting_that_the_space_decides_is_named(tuner_here: CommandLine) -> None:
    done = tuner_here("validate", "quickstart", "--set", "settings.freeze=all")
    assert done.returncode == 0, done.stderr
    first, note = done.stdout.splitlines()
    assert first == "quickstart: valid"
    assert note.startswith("note: settings.freeze is 'all', but freeze is a hyperparameter")


def test_data_may_be_a_list_or_have_a_name(tuner_here: CommandLine) -> None:
    (tuner_here.folder / "all.csv").write_text("path,label\n")
    done = tuner_here("validate", "--data", "all.csv")
    assert done.returncode == 1
    assert "all.csv" in done.stderr
    assert "which lists no examples" in done.stderr
    done = tuner_here("validate", "--data", "digits")
    assert (done.returncode, done.stdout) == (0, "digits: valid\n"), done.stderr
    done = tuner_here("validate", "--data", "nowhere")
    assert done.stderr.startswith("error: settings: data is 'nowhere', but ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('"text,label\n' + 200_000 * "a", "is no .csv file"),
        ("text,label\na,x\n,y\n", "line 3 has no text or no label"),
        ("path,label\n", "which lists no examples"),
    ],
)
def test_a_table_is_read_by_its_columns_and_refused_by_its_reader(
    tuner_here: CommandLine, content: str, said: str
) -> None:
    (tuner_here.folder / "mine.csv").write_text(content)
    done = tuner_here("validate", "--data", "mine.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
