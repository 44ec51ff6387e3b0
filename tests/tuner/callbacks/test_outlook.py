"""What is planned, against what a search then runs; the pace against a clock of the test's own."""

import pytest

from tests.tuner.callbacks.searches import Stepwise, fails, search_of, settings_of
from tuner.callbacks.outlook import Outlook
from tuner.search.search import Search


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_where_all_run_to_the_end_the_plan_is_exact_and_follows_failures(algorithm: str) -> None:
    settings = settings_of(algorithm)
    search = search_of(settings)
    outlook = Outlook(search, settings, slots=4)
    search.subscribe(outlook)
    assert outlook.exact
    assert outlook.planned == search.num_trials * 9

    Stepwise(search).run()

    failed = sum(fails(trial.number) for trial in search.trials)
    assert outlook.planned == search.epochs_done == (search.num_trials - failed) * 9


@pytest.mark.parametrize("algorithm", ["asha", "bohb"])
def test_the_plan_of_halving_is_close_and_closer_towards_the_end(algorithm: str) -> None:
    settings = settings_of(algorithm)
    search = search_of(settings)
    outlook = Outlook(search, settings, slots=4)
    search.subscribe(outlook)
    planned = [outlook.planned]
    run = Stepwise(search)
    while run.step():
        planned.append(outlook.planned)

    done = search.epochs_done
    assert not outlook.exact
    assert planned[0] == pytest.approx(done, rel=0.3)
    assert planned[-1] == pytest.approx(done, rel=0.1)
    assert planned[-1] >= done


def test_a_halted_search_has_only_what_is_under_way_to_do() -> None:
    settings = settings_of()
    search = search_of(settings)
    outlook = Outlook(search, settings, slots=4)
    Stepwise(search).run(until=lambda search: search.epochs_done == 20)
    search.halt("enough")

    assert outlook.planned == 20 + len(search.active)


def timed(search: Search, outlook: Outlook, clock: Clock, seconds: float, results: int) -> None:
    search.subscribe(outlook)
    run = Stepwise(search, slots=1)
    for _ in range(results):
        clock.now += seconds
        run.step()


def test_pace_and_time_left_follow_the_clock() -> None:
    settings, clock = settings_of("random", num_trials=3), Clock()
    search = search_of(settings)
    outlook = Outlook(search, settings, slots=1, clock=clock)

    timed(search, outlook, clock, seconds=2.0, results=2)
    assert outlook.epochs_per_minute is None, "2 s are too few to say"
    assert outlook.seconds_left is None

    timed_more = Outlook(search, settings, slots=1, clock=clock)
    timed(search, timed_more, clock, seconds=2.0, results=19)
    assert timed_more.epochs_per_minute == pytest.approx(30.0)
    assert timed_more.seconds_left == pytest.approx(6 * 2.0)


def test_a_time_budget_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, clock = settings_of("random"), Clock()
    search = search_of(settings)
    outlook = Outlook(search, settings, slots=1, time_budget=100.0, clock=clock)
    timed(search, outlook, clock, seconds=2.0, results=20)
    monkeypatch.setattr(Search, "elapsed", 70.0)

    assert outlook.seconds_left == 30.0
