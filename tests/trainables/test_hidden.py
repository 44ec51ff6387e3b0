"""What nobody needs is not imported."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainables
from trainables.hidden import hidden


@pytest.mark.parametrize(
    "module", ["trainables.image_classification", "tuner.search.tune_adapters"]
)
def test_loggers_that_a_library_would_import_are_not_waited_for(
    module: str, tmp_path: Path
) -> None:
    for name in ("aim", "mlflow", "wandb"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')\n")
    code = f"import {module}, sys; assert 'wandb' not in sys.modules"
    path = os.pathsep.join([str(tmp_path), str(Path(trainables.__file__).parents[1])])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


def test_what_is_hidden_is_there_again_and_what_was_there_stays() -> None:
    sys.modules.pop("colorsys", None)
    with hidden("colorsys", "json"):
        assert importlib.import_module("json").dumps([]) == "[]"
        with pytest.raises(ImportError):
            importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
