from typing import Any

import pytest
from pydantic import ValidationError

from trainables.image_classification.config import Settings
from trainables.image_classification.freezing import Freeze


def test_data_alone_is_enough():
    settings = Settings(data="digits")

    assert (settings.backbone, settings.weights) == ("efficientnet_lite0", "default")


@pytest.mark.parametrize("freeze", ["none", "all", 0, 3])
def test_freeze_takes_what_a_search_space_delivers(freeze: Freeze):
    assert Settings(data="digits", freeze=freeze).freeze == freeze


@pytest.mark.parametrize(
    "wrong",
    [
        {"freeze": -1},
        {"freeze": "half"},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"optimizer": "adam"},
        {"validation_fraction": 1},
        {"horizontal_flip": 1.5},
        {"colour": True},
    ],
)
def test_a_wrong_value_and_an_unknown_key_are_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(data="digits", **wrong)


def test_every_field_is_described():
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings(data="digits").batch_size = 8
