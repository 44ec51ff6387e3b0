import re

import pytest

from search_spaces import (
    SPACES,
    default_configuration,
    dump_space,
    grid,
    grid_size,
    load_space,
    sample,
    to_configuration,
)
from search_spaces.builtin import builtin_file

SETTINGS = {
    "backbone_lr_scale",
    "batch_size",
    "dropout",
    "embedding_dim",
    "freeze",
    "horizontal_flip",
    "label_smoothing",
    "layers",
    "learning_rate",
    "momentum",
    "network",
    "optimizer",
    "rotation",
    "vocabulary_size",
    "warmup_epochs",
    "weight_decay",
}
"""Settings of the built-in trainables that the built-in spaces may search."""


def test_every_yaml_file_is_a_built_in_and_says_what_it_is_for():
    files = {path.name for path in builtin_file("quickstart").parent.glob("*.yaml")}
    assert files == set(SPACES.values())
    assert all(builtin_file(name).read_text().startswith("# ") for name in SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_a_built_in_gives_valid_configurations_of_known_settings(name: str):
    space = load_space(name)
    assert set(space) <= SETTINGS
    assert dump_space(load_space(dump_space(space))) == dump_space(space)
    for config in [default_configuration(space), *(sample(space, seed) for seed in range(20))]:
        to_configuration(space, config)
        assert ("momentum" in config) == (config.get("optimizer") == "sgd")


@pytest.mark.parametrize("name", SPACES)
def test_the_comment_states_the_size_of_the_grid(name: str):
    stated = re.search(r"has (\d+) points", builtin_file(name).read_text())
    assert stated
    space = load_space(name)
    assert int(stated[1]) == grid_size(space) == len(grid(space))


def test_quickstart_starts_with_what_is_known_to_work():
    assert default_configuration(load_space("quickstart")) == {
        "freeze": 6,
        "label_smoothing": 0.0,
        "learning_rate": 1e-3,
    }


def test_linear_probe_freezes_all():
    assert sample(load_space("linear_probe"), 0)["freeze"] == "all"


def test_fine_tune_scales_only_a_backbone_that_learns():
    configs = grid(load_space("fine_tune"))
    assert {c["freeze"] for c in configs if "backbone_lr_scale" in c} == {"none", 1, 2}
    assert {c["freeze"] for c in configs if "backbone_lr_scale" not in c} == {"all"}
