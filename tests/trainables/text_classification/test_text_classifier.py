import json
from pathlib import Path
from typing import Any

import pytest
import torch
from docstring_files import write_docstrings
from safetensors.torch import load_file, save_file

from trainables.task import Context
from trainables.text_classification import TextClassification, TextClassifier
from trainables.text_classification.config import Settings
from trainables.text_classification.vocabulary import Vocabulary

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["embedding_bag", "transformer"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TextClassification, Path]:
    """A Task after an epoch, and the folder of its export."""
    home = tmp_path_factory.mktemp("home")
    config = Settings(
        data=str(write_docstrings(home / "texts.csv")),
        network=request.param,
        vocabulary_size=600, max_tokens=24, embedding_dim=16, layers=1, learning_rate=0.03,
        ema_decay=0.5,
    )  # fmt: skip
    task = TextClassification(config, Context(cache_dir=home / "cache"))
    task.context.start_epoch(0)
    task.train_epoch()
    (home / "best").mkdir()
    TextClassification.export(config, task.state_dict(), home / "best")
    return task, home / "best"


def test_a_text_is_predicted_as_evaluation_has_it(trained: tuple[TextClassification, Path]) -> None:
    task, best = trained
    val = task.data.val
    model = TextClassification.load(best)
    texts = [task.data.vocabulary.decode(val.encoded.row(int(r), 10**6)) for r in val.rows]

    found = model.predict(texts, batch_size=7)

    assert [prediction.input for prediction in found] == texts
    right = sum(
        prediction.label == task.labels[target]
        for prediction, target in zip(found, val.targets.tolist(), strict=True)
    )
    assert right / len(val) == pytest.approx(task.evaluate()["val_accuracy"])
    assert all(1 / 3 <= prediction.probability <= 1 for prediction in found)


def test_white_space_around_a_text_and_what_is_beyond_its_beginning_do_not_matter(
    trained: tuple[TextClassification, Path],
) -> None:
    model = TextClassification.load(trained[1])
    text = "Emit a record to the handlers of this logger. " * 9

    first, other = model.predict([text, f"\n {text} and then more"])

    assert (first.label, first.probability) == (other.label, pytest.approx(other.probability))


def test_the_average_of_the_weights_is_exported(trained: tuple[TextClassification, Path]) -> None:
    task, best = trained

    torch.testing.assert_close(load_file(best / "model.safetensors"), task.state_dict()["ema"])


def test_nothing_and_what_is_no_unicode_is_refused(
    trained: tuple[TextClassification, Path],
) -> None:
    model = TextClassification.load(trained[1])

    with pytest.raises(ValueError, match="a text is empty: leave it out"):
        model.predict(["fine", " \n"])
    with pytest.raises(ValueError, match=r"a text is no Unicode .*give it in UTF-8"):
        model.predict(["\udcff"])


def test_words_of_a_command_line_are_texts_or_files_of_them(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one text\n\nanother\n")
    (tmp_path / "more.csv").write_text('id,text,label\n1,"a, b",x\n2,c,y\n')
    (tmp_path / "other.csv").write_text("id,body\n1,a\n")
    model = TextClassifier(torch.nn.Identity(), [], Vocabulary.build([], 256), 1)

    words = ["a text", str(tmp_path / "lines.txt"), str(tmp_path / "more.csv"), "see data.csv"]
    assert model.read_inputs(words) == [
        "a text", "one text", "another", "a, b", "c", "see data.csv",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"other\.csv, whose first line is 'id,body': it must"):
        model.read_inputs([str(tmp_path / "other.csv")])
    for name in ("nowhere.txt", "nowhere.csv"):
        with pytest.raises(ValueError, match=rf"{name},? .*cannot be read"):
            model.read_inputs([name])


def test_a_folder_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no exported text classifier .*give the folder"):
        TextClassification.load(tmp_path)


def test_weights_of_another_model_are_refused(
    trained: tuple[TextClassification, Path], tmp_path: Path
) -> None:
    for name in ("model.json", "labels.json", "vocabulary.json"):
        (tmp_path / name).write_text((trained[1] / name).read_text())
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match="are of different models"):
        TextClassification.load(tmp_path)


def described(best: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((best / "model.json").read_text())
    return made


def test_the_example_input_is_what_forward_takes(
    trained: tuple[TextClassification, Path],
) -> None:
    model = TextClassification.load(trained[1])

    ids = model.example_input(3)

    assert ids.shape == (3, described(trained[1])["sizes"]["max_tokens"])
    assert ids.max() < described(trained[1])["sizes"]["ids"]
    assert (ids[0] == 0).any()
    assert model(ids).shape == (3, 3)
