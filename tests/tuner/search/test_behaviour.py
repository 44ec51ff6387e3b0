"""One behaviour suite, run over all four searches, under the simulated clock."""

import json
import math
from collections import Counter
from typing import Any

import pytest

from search_spaces import grid_size, load_space, to_configuration
from tests.conftest import EXAMPLES
from tuner.search import SEARCHES, SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.rules.rungs import rungs
from tuner.search.search import Search
from tuner.search.simulation import simulate
from tuner.search.trial import Decision, Status

ALGORITHMS = [*SEARCHES, "asha+gp", "asha+tpe", "asha+kde", "bohb+random", "bohb+gp", "bohb+tpe"]
SPACE = load_space(str(EXAMPLES / "every_kind.yaml"))
PLAIN = {int, float, str, bool, type(None)}


def make(algorithm: str, journal: MemoryJournal | None = None, **settings: Any) -> Search:
    options = {k: settings.pop(k) for k in ("max_faults", "plateau_epochs") if k in settings}
    fields = {"num_trials": 20, "max_epochs": 9, "metric": "loss", "mode": "min", **settings}
    rule, _, sampler = algorithm.partition("+")
    named = {"algorithm": rule, "sampler": sampler or None, **fields}
    return build_search(
        SearchSettings.model_validate(named), SPACE, journal or MemoryJournal(), **options
    )


def curve(config: dict[str, Any], epoch: int) -> float:
    return abs(math.log10(config["lr"]) + 2) / epoch + 0.1 * (config["optimizer"] == "sgd")


def with_failures(config: dict[str, Any], epoch: int) -> float:
    if config["lr"] > 0.1:
        raise ValueError("it does not fit")
    if config["layers"] == 3 and epoch > 1:
        return math.nan
    return curve(config, epoch)


def state(search: Search) -> dict[str, Any]:
    return {
        "trials": [vars(trial) for trial in search.trials],
        "reached": dict(search.reached),
        "told": dict(search.sampler.told),
        "active": sorted(t.number for t in search.active),
        "epochs": search.epochs_done,
        "promotions": search.promotions,
        "best": search.best and search.best.number,
        "halted": search.halted,
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestEverySearch:
    def test_configurations_are_valid_plain_and_in_bounds(self, algorithm: str) -> None:
        search = make(algorithm)
        simulate(search, curve, slots=2)
        for trial in search.trials:
            to_configuration(SPACE, trial.config)  # raises where it is none
            assert {type(value) for value in trial.config.values()} <= PLAIN
            assert 1e-3 <= trial.config["lr"] <= 0.3
            assert ("momentum" in trial.config) == (trial.config["optimizer"] == "sgd")
            assert (trial.config["optimizer"], trial.config["size"]) != ("adamw", "large")
            assert trial.config["kind"] == "toy"
            json.dumps(trial.config)

    def test_same_seed_same_draws_and_another_seed_others(self, algorithm: str) -> None:
        def draws(seed: int) -> list[dict[str, Any]]:
            search = make(algorithm, seed=seed)
            simulate(search, curve, slots=1)
            return [trial.config for trial in search.trials]

        assert draws(1) == draws(1)
        if algorithm != "grid":
            assert draws(1)[1:] != draws(2)[1:]

    def test_the_count_of_trials_is_exact(self, algorithm: str) -> None:
        search = make(algorithm, num_trials=13)
        simulate(search, curve, slots=3)
        assert len(search.trials) == (grid_size(SPACE) if algorithm == "grid" else 13)

    def test_the_default_comes_first_except_in_a_grid(self, algorithm: str) -> None:
        search = make(algorithm)
        first = search.next_job()
        assert first is not None
        assert (first.origin == "default") == (algorithm != "grid")
        if algorithm != "grid":
            assert first.config["lr"] == 0.01

    def test_every_result_at_a_target_is_told_once(self, algorithm: str) -> None:
        journal = MemoryJournal()
        search = make(algorithm, journal)
        simulate(search, with_failures, slots=3)
        assert search.reached == search.sampler.told
        advances = sum(event.get("verdict") == "advance" for event in journal.written)
        assert search.reached.total() == len(search.trials) + search.promotions + advances
        assert Status.FAILED in {trial.status for trial in search.trials}

    def test_some_trial_gets_to_max_epochs(self, algorithm: str) -> None:
        search = make(algorithm, num_trials=2)
        simulate(search, curve, slots=1)
        assert max(trial.epoch for trial in search.trials) == 9

    def test_a_journal_replayed_from_every_prefix_gives_the_state_it_had(
        self, algorithm: str
    ) -> None:
        journal = MemoryJournal()
        search = make(algorithm, journal, num_trials=8)
        states: list[str] = []
        search.subscribe(lambda _, s: states.append(json.dumps(state(s), default=str)))
        simulate(search, with_failures, slots=2)
        assert len(states) == len(journal.written) > 20
        for end, expected in enumerate(states, start=1):
            prefix = json.loads(json.dumps(journal.written[:end]))  # as it comes from a file
            replayed = make(algorithm, MemoryJournal(prefix), num_trials=8)
            assert json.dumps(_loose(state(replayed))) == json.dumps(_loose(json.loads(expected)))

    def test_a_resumed_search_ends_as_an_unbroken_one(self, algorithm: str) -> None:
        unbroken, whole = make(algorithm, num_trials=8), MemoryJournal()
        simulate(unbroken, curve, slots=1)
        search = make(algorithm, whole, num_trials=8)
        simulate(search, curve, slots=1)
        for end in range(1, len(whole.written), max(1, len(whole.written) // 10)):
            resumed = make(algorithm, MemoryJournal(whole.written[:end]), num_trials=8)
            resumed.open_session()
            simulate(resumed, curve, slots=1)
            assert _outcome(resumed) == _outcome(unbroken), f"broken off after {end} events"

    def test_all_trials_failing_is_an_end_too(self, algorithm: str) -> None:
        def fail(*_: Any) -> float:
            raise ValueError("nothing works")

        search = make(algorithm, num_trials=5)
        simulate(search, fail, slots=2)
        assert {trial.status for trial in search.trials} == {Status.FAILED}
        assert search.best is None

    def test_a_halted_search_stops_at_the_next_reports(self, algorithm: str) -> None:
        search = make(algorithm)
        trial = search.next_job()
        assert trial is not None
        search.halt("enough")
        assert search.report(trial.number, 1, {"loss": 1.0}) is Decision.STOP
        search.close(trial.number)
        assert search.finished
        assert search.next_job() is None

    def test_a_lost_trial_is_taken_up_again_so_many_times(self, algorithm: str) -> None:
        search = make(algorithm, max_faults=2)
        trial = search.next_job()
        assert trial is not None
        for _ in range(2):
            search.interrupt(trial.number, {"message": "gone"})
            assert search.next_job() is trial
        assert trial.attempts == 3
        search.interrupt(trial.number, {"message": "gone"})
        assert trial.status is Status.FAILED

    def test_a_repeated_report_changes_nothing(self, algorithm: str) -> None:
        search = make(algorithm)
        trial = search.next_job()
        assert trial is not None
        trial.target = 9
        search.report(trial.number, 1, {"loss": 1.0})
        before = state(search)
        assert search.report(trial.number, 1, {"loss": 0.5}) is Decision.CONTINUE
        assert state(search) == before


@pytest.mark.parametrize("algorithm", ["random", "asha", "bohb"])
class TestBaseline:
    """The default configuration runs to max_epochs, and is nobody's competitor."""

    def test_it_passes_every_rung_whatever_it_reaches(self, algorithm: str) -> None:
        def bad_default(config: dict[str, Any], epoch: int) -> float:
            return 9.0 if config["lr"] == 0.01 else curve(config, epoch)

        search = make(algorithm)
        simulate(search, bad_default, slots=2)
        baseline = search.trials[0]
        assert (baseline.epoch, baseline.status) == (9, Status.COMPLETED)
        assert baseline.is_baseline
        assert not any(trial.is_baseline for trial in search.trials[1:])
        assert all(search.reached[level] >= 1 for level in search.rule.levels)

    def test_another_trial_reaches_max_epochs_too(self, algorithm: str) -> None:
        search = make(algorithm, num_trials=2)
        simulate(search, curve, slots=1)
        assert [trial.epoch for trial in search.trials] == [9, 9]

    def test_it_is_not_in_the_rules_count(self, algorithm: str) -> None:
        starts: list[int] = []
        search = make(algorithm, num_trials=8)
        started = search.rule.started
        search.rule.started = lambda trial: (  # type: ignore[method-assign]
            starts.append(trial.number), started(trial),
        )[1]  # fmt: skip
        simulate(search, curve, slots=3)
        assert starts == list(range(1, 8))

    def test_a_search_of_one_trial_is_the_baseline(self, algorithm: str) -> None:
        search = make(algorithm, num_trials=1)
        simulate(search, curve, slots=2)
        assert [(t.origin, t.epoch) for t in search.trials] == [("default", 9)]


def _loose(value: Any) -> Any:
    """Keys as JSON has them, and no infinities."""
    return json.loads(json.dumps(value, default=str).replace("Infinity", '"inf"'))


def _outcome(search: Search) -> Any:
    return [(t.config, t.epoch, t.status, t.loss) for t in search.trials], dict(search.reached)


@pytest.mark.parametrize("algorithm", ["asha", "bohb"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_trial_that_cannot_be_saved_fails_and_nobody_waits_for_it(
    algorithm: str, slots: int
) -> None:
    """Its save fails after it was paused, or completed: it is not counted twice, and none hangs."""
    journal = MemoryJournal()
    search = make(algorithm, journal, num_trials=20)

    def fail_some(event: dict[str, Any], search: Search) -> None:
        if event.get("verdict") in ("pause", "complete") and event["trial"] % 3 == 0:
            search.fail(event["trial"], {"type": "OSError", "message": "no space left"})

    search.subscribe(fail_some)
    simulate(search, curve, slots=slots)
    assert len(search.trials) == 20
    assert search.reached == search.sampler.told
    advances = sum(event.get("verdict") == "advance" for event in journal.written)
    assert search.reached.total() == len(search.trials) + search.promotions + advances
    failed = [t.number for t in search.trials if t.status is Status.FAILED]
    assert failed
    assert all(number % 3 == 0 for number in failed)
    assert any(t.epoch == 9 for t in search.trials)


def test_a_trial_promoted_in_a_later_session_has_a_folder_of_its_own() -> None:
    """It is a new Tune trial there, whose checkpoints count from the start again."""
    journal = MemoryJournal()
    search = make("asha", journal, num_trials=2)
    search.next_job()
    search.fail(0, {"type": "OSError", "message": "the baseline is of no interest here"})
    trial = search.next_job()
    assert trial is not None
    search.report(1, 1, {"loss": 1.0})
    assert (trial.status, trial.attempts) == (Status.PAUSED, 1)
    later = make("asha", MemoryJournal(journal.written), num_trials=2)
    later.open_session()
    again = later.next_job()
    assert again is not None
    assert (again.number, again.attempts) == (1, 2)


def test_a_trial_lost_after_the_halt_is_not_taken_up_again() -> None:
    search = make("random")
    search.next_job()
    search.halt("enough")
    search.interrupt(0, {"message": "gone"})
    assert search.finished


@pytest.mark.parametrize("ended", ["completed", "not finite", "lost too often", "halted"])
def test_a_best_model_that_was_damaged_is_trained_again(ended: str) -> None:
    """By its trial, whatever has become of that; and what is reported again counts once."""
    search = make("random", num_trials=1, max_epochs=4, max_faults=0)
    search.next_job()
    for epoch, loss in enumerate([2.0, 1.0, 3.0], start=1):
        search.report(0, epoch, {"loss": loss})
        search.checkpointed(0, epoch, f"trial_0000/checkpoint_{epoch}")
    if ended == "lost too often":  # it leaves its latest checkpoint behind, too
        search.interrupt(0, {"type": "Lost", "message": "gone"})
    else:
        if ended == "halted":
            search.halt("enough")
        search.report(0, 4, {"loss": math.nan if ended == "not finite" else 4.0})
        search.close(0)
    (trial,), done = search.trials, search.epochs_done
    assert 2 in trial.checkpoints
    assert not trial.resumable

    search.open_session()
    search.damaged(0, {"type": "DamagedCheckpointError", "message": "cut"}, 2)
    search.halt("enough, while it waits")

    assert search.next_job() is trial
    assert trial.checkpoint is None, "it begins anew"
    assert search.report(0, 1, {"loss": 2.0}) is Decision.CONTINUE
    search.checkpointed(0, 1, "trial_0000_2/checkpoint_1")
    assert search.report(0, 2, {"loss": 1.0}) is Decision.STOP
    search.checkpointed(0, 2, "trial_0000_2/checkpoint_2")
    search.close(0)
    assert search.finished
    assert trial.checkpoints == {2: "trial_0000_2/checkpoint_2"}
    assert (search.epochs_done, trial.best_epoch) == (done, 2)


def test_a_plateau_ends_a_trial_and_counts_where_it_was_heading() -> None:
    search = make("random", num_trials=1, plateau_epochs=2)
    simulate(search, lambda *_: 1.0, slots=1)
    assert search.trials[0].epoch == 3
    assert search.trials[0].status is Status.COMPLETED
    assert search.reached == Counter({9: 1})


@pytest.mark.parametrize(
    ("max_epochs", "eta", "expected"),
    [
        (100, 3, [1, 4, 11, 33, 100]),
        (9, 3, [1, 3, 9]),
        (10, 4, [1, 2, 10]),
        (729, 3, [1, 3, 9, 27, 81, 243, 729]),
        (1, 2, [1]),
        (2, 4, [1, 2]),
    ],
)
def test_rungs_end_at_max_epochs(max_epochs: int, eta: int, expected: list[int]) -> None:
    assert rungs(max_epochs, eta) == expected
