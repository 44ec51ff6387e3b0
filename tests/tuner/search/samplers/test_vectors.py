import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace

from search_spaces import load_space, sample, to_configuration
from tests.conftest import EXAMPLES
from tuner.search.samplers.vectors import VectorSpace, keys

EVERY_KIND = str(EXAMPLES / "every_kind.yaml")
UNEQUAL_DEPTHS = {
    "hyperparameters": {
        "a": {"type": "categorical", "choices": ["x", "y"]},
        "b": {"type": "categorical", "choices": ["x", "y"]},
        "c": {"type": "float", "lower": 0.0, "upper": 1.0},
    },
    "conditions": [
        {"child": "b", "parent": "a", "equals": "x"},
        {"child": "c", "parent": "b", "not_equals": "x"},
    ],
}


@pytest.fixture(params=[EVERY_KIND, "fine_tune", UNEQUAL_DEPTHS], ids=["every", "tune", "depths"])
def space(request: pytest.FixtureRequest) -> ConfigurationSpace:
    return load_space(request.param)


def test_draws_and_mutations_are_configurations_of_the_space(space: ConfigurationSpace) -> None:
    vectors, random = VectorSpace(space), np.random.default_rng(0)
    drawn = vectors.draw(300, random)
    mutated = vectors.mutate(drawn, random)
    assert len(drawn) > 150
    assert len(mutated) > 75
    for row in [*drawn, *mutated]:
        config = vectors.decode(row)
        to_configuration(space, config)  # raises where it is none
        np.testing.assert_allclose(vectors.encode(config), row, atol=1e-6)


def test_a_configuration_comes_back_as_it_was(space: ConfigurationSpace) -> None:
    vectors = VectorSpace(space)
    for seed in range(50):
        config = sample(space, seed)
        assert vectors.decode(vectors.encode(config)) == config


def test_a_mutation_changes_one_or_two_values_and_what_hangs_on_them() -> None:
    space = load_space("quickstart")  # no conditions: what differs is what was changed
    vectors, random = VectorSpace(space), np.random.default_rng(0)
    drawn = vectors.draw(200, random)
    changed = (vectors.mutate(drawn, random) != drawn).sum(axis=1)
    assert set(changed) <= {0, 1, 2}  # 0: a step off the end of a range, or there and back
    assert (changed == 1).sum() > 80
    assert (changed == 2).sum() > 30


def test_distances_are_by_hyperparameter_and_categories_are_equally_far() -> None:
    vectors = VectorSpace(load_space(EVERY_KIND))
    rows = vectors.draw(50, np.random.default_rng(0))
    distances = vectors.squared_distances(rows, rows)
    assert distances.shape == (5, len(rows), len(rows))  # the constant tells nothing apart
    assert distances.min() == 0.0
    assert distances.max() <= 1.0
    assert np.isfinite(distances).all()  # what is inactive lies at its default


def test_keys_tell_configurations_apart() -> None:
    rows = np.array([[0.0, np.nan], [0.0, 0.5], [0.0, np.nan]])
    first, second, third = keys(rows)
    assert first == third != second
