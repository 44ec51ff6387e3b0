"""What ``trainable`` may name."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.trainable import resolve_trainable

MODULE = """
from tuner import Task

class Half(Task):
    def train_epoch(self): ...
    def evaluate(self): ...
    def state_dict(self): ...

class Nothing: ...
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_clasification", r"must be a built-in name \(image_classification\?\) or package"),
        ("no_such_module:Task", "cannot import 'no_such_module'"),
        ("half_a_task:Whole", "'half_a_task' defines no class 'Whole'"),
        ("half_a_task:Nothing", r"Nothing is neither a Task \(it has no train_epoch\) nor a ray"),
        ("half_a_task:Half", "Half is not a whole Task; define load_state_dict"),
    ],
)
def test_what_is_no_trainable_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "half_a_task.py").write_text(MODULE)
    with pytest.raises(UserError, match=f"^trainable is '{name}': .*{message}"):
        resolve_trainable(name, tmp_path)


def test_ranks_import_ahead_what_is_safe_to_import() -> None:
    assert resolve_trainable("text_classification").modules == [
        "trainables.distributed",
        "trainables.rank_group",
        "trainables.text_classification",
    ]
    folder = Path(__file__).parents[1] / "examples"
    own = resolve_trainable("toy_task:Toy", folder)
    assert own.modules == ["trainables.distributed", "trainables.rank_group"]
    assert resolve_trainable("plain_trainable:Curve", folder).modules == ["ray.tune"]
