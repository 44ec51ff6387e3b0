import pytest

from search_spaces import load_space
from tuner.experiment import Final
from tuner.plan import Costs, disk_bytes, forecast
from tuner.search import SEARCHES, SearchSettings, build_search
from tuner.search.journal import NoJournal
from tuner.search.simulation import simulate

SPACE = {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 1.0}}}


def settings_of(algorithm: str, **values: int) -> SearchSettings:
    return SearchSettings.model_validate({"algorithm": algorithm, "max_epochs": 9, **values})


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_what_decides_nothing_is_forecast_exactly(algorithm: str) -> None:
    costs = Costs(slots=2, epoch_seconds=10.0, startup_seconds=5.0)

    found = forecast(settings_of(algorithm), 7, costs)

    assert found.expected == found.most
    assert found.expected.epochs == 7 * 9
    assert found.expected.seconds == 4 * 9 * 10 + 5


@pytest.mark.parametrize("algorithm", SEARCHES)
@pytest.mark.parametrize("better_with_x", [True, False])
def test_a_run_takes_no_more_than_the_most(algorithm: str, better_with_x: bool) -> None:
    settings = settings_of(algorithm, num_trials=16)
    search = build_search(settings, load_space(SPACE), NoJournal())
    sign = 1 if better_with_x else -1
    took = simulate(search, lambda config, _: sign * config["x"], slots=3, epoch_seconds=2.0)

    found = forecast(settings, search.num_trials, Costs(slots=3, epoch_seconds=2.0))

    assert took.epochs <= found.most.epochs
    assert took.seconds <= found.most.seconds
    assert found.expected.epochs <= found.most.epochs


def test_asha_is_expected_to_save_most_of_the_epochs_but_need_not() -> None:
    found = forecast(settings_of("asha", max_epochs=27), 60, Costs(slots=4, epoch_seconds=1.0))

    assert found.expected.epochs < 60 * 27 / 4
    assert found.most.epochs > 60 * 27 / 2


@pytest.mark.parametrize(("final", "epochs"), [({}, 9), ({"epochs": 4}, 4)])
def test_a_final_fit_follows_on_one_slot(final: dict[str, int], epochs: int) -> None:
    costs = Costs(slots=2, epoch_seconds=10.0)
    settings = settings_of("asha")

    search = forecast(settings, 20, costs)
    found = forecast(settings, 20, costs, Final.model_validate(final))

    for amount, before in [(found.expected, search.expected), (found.most, search.most)]:
        assert amount.epochs == before.epochs + epochs
        assert amount.seconds == before.seconds + 10 * epochs


def test_the_same_experiment_has_the_same_forecast() -> None:
    costs = Costs(slots=2, epoch_seconds=1.0)

    assert forecast(settings_of("asha"), 20, costs) == forecast(settings_of("asha"), 20, costs)


@pytest.mark.parametrize(
    ("algorithm", "kept"), [("random", (10, 12)), ("grid", (10, 12)), ("asha", (10, 20))]
)
def test_disk_holds_a_checkpoint_a_trial_and_a_second_one_while_it_may_go_on(
    algorithm: str, kept: tuple[int, int]
) -> None:
    costs = Costs(slots=2, epoch_seconds=1.0, checkpoint_bytes=100, best_bytes=7)

    expected, most = kept
    assert disk_bytes(settings_of(algorithm), 10, costs) == (expected * 100 + 7, most * 100 + 7)
