import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tuner.commands import export as command
from tuner.commands.export import export
from tuner.errors import UserError
from tuner.results import load_model

TASK = """
import torch
from torch import nn

class Exported:
    train_epoch = None.__repr__

    @classmethod
    def load(cls, folder):
        torch.manual_seed(0)
        return MODELS[(folder / "model").read_text()]().eval()

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3))
    def forward(self, values):
        return self.layers(values)
    def example_input(self, batch_size):
        return torch.randn(batch_size, 5)

class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveMaxPool2d(1))
    def forward(self, images):
        return self.layers(images).flatten(1)
    def example_input(self, batch_size):
        return torch.randn(batch_size, 3, 12, 12)

class Silent(Plain):
    example_input = None

class FixedBatch(Plain):
    def forward(self, values):
        return self.layers(values.view(2, 5))

class Branching(Plain):
    def forward(self, values):
        return self.layers(values) if len(values) == 2 else values

MODELS = {kind.__name__: kind for kind in (Plain, Image, Silent, FixedBatch, Branching)}
"""


@pytest.fixture
def best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A best/ folder; the file ``model`` in it says which model load_model returns."""
    (tmp_path / "exported.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("exported", None)
    folder = tmp_path / "run" / "best"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("trainable: exported:Exported\n")
    return folder


@pytest.mark.parametrize(
    ("model", "shape"), [("Plain", (9, 5)), ("Image", (4, 3, 12, 12))], ids=["plain", "image"]
)
@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_the_file_gives_the_models_outputs_for_any_number_of_examples(
    best: Path, capsys: pytest.CaptureFixture[str], model: str, shape: tuple[int, ...], form: str
) -> None:
    (best / "model").write_text(model)

    export(best.parent, form, None)

    file = best / {"onnx": "model.onnx", "torchscript": "model.pt"}[form]
    batch = torch.randn(shape)
    with torch.inference_mode():
        wanted = load_model(best)(batch).numpy()
    if form == "onnx":
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        got = session.run(None, {"input": batch.numpy()})[0]
    else:
        got = torch.jit.load(str(file))(batch).detach().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    captured = capsys.readouterr()
    of_shape = ", ".join(map(str, shape[1:]))
    assert captured.out.startswith(f"{file}: 0.0 MB, takes float32 (batch, {of_shape})\n")
    assert "compared on 3 random inputs: outputs differ by at most" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("model", ["FixedBatch", "Branching"])
def test_a_model_that_does_not_survive_is_refused_and_nothing_is_written(
    best: Path, model: str, form: str
) -> None:
    (best / "model").write_text(model)
    before = sorted(best.iterdir())

    with pytest.raises(UserError, match=f"{model} (cannot be exported|does not survive) as {form}"):
        export(best, form, None)

    assert sorted(best.iterdir()) == before


def test_a_model_that_does_not_say_what_it_takes_is_told_how(best: Path) -> None:
    (best / "model").write_text("Silent")

    with pytest.raises(UserError, match=r"Silent does not say what it takes: .*example_input"):
        export(best, "onnx", None)


def test_without_onnx_the_extra_is_named(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)

    with pytest.raises(UserError, match=r"pip install 'tuner\[onnx\]'"):
        export(best, "onnx", None)


def test_another_form_is_refused(best: Path) -> None:
    with pytest.raises(
        UserError, match="--format is 'tflite'; it must be one of onnx, torchscript"
    ):
        export(best, "tflite", None)


def test_an_output_that_cannot_be_written_is_named(best: Path) -> None:
    (best / "model").write_text("Plain")

    with pytest.raises(UserError, match=r"--output is .*, which cannot be written"):
        export(best, "torchscript", best / "config.yaml" / "model.pt")
