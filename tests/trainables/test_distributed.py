"""Tasks on real gloo ranks under Ray: warm, repaired after failures, replaced after losses."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune import Checkpoint

from tests.conftest import EXAMPLES
from trainables.checkpoint import DamagedCheckpointError
from trainables.distributed import DistributedTrainable
from trainables.peer import RankLostError
from tuner.run import Summary, start_run
from tuner.search.trial import Status


@pytest.fixture
def run(ray_address: str) -> Callable[[Any], Summary]:
    return lambda experiment: start_run(experiment, address=ray_address, folder=EXAMPLES)


def test_a_users_task_runs_on_two_ranks(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    """Under every search it does in tests/test_end_to_end.py."""
    summary = run(
        experiment(
            search__algorithm="bohb",
            search__num_trials=7,
            resources__workers_per_trial=2,
            resources__max_concurrent_trials=1,
        )
    )
    search = summary.search
    assert len(search.trials) == 7
    assert not [trial for trial in search.trials if trial.status is Status.FAILED]
    assert summary.actors == 1
    assert max(trial.epoch for trial in search.trials) == 3
    assert json.loads((summary.best / "metrics.json").read_text())["trial"] == search.best.number


def test_a_task_that_raises_on_one_rank_fails_alone_and_the_ranks_stay(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    """Whether it is rank 0 or a peer: the other one waits in a collective and must come out."""
    space = {"hyperparameters": {"fail_on_rank": {"type": "ordinal", "sequence": [7, 0, 1]}}}
    summary = run(
        experiment(
            search_space=space,
            search__algorithm="grid",
            resources__workers_per_trial=2,
            resources__max_concurrent_trials=1,
        )
    )
    fine, first, peer = summary.search.trials
    assert fine.status is Status.COMPLETED
    for rank, trial in enumerate((first, peer)):
        assert trial.status is Status.FAILED
        assert trial.error["rank"] == rank
        assert trial.error["message"] == f"rank {rank} fails on purpose"
        assert "misbehave" in trial.error["traceback"]
        assert trial.attempts == 1
    assert summary.actors == 1


def test_a_checkpoint_that_is_gone_is_told_from_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first costs epochs, the second an attempt; neither is the configuration's fault."""
    trainable = DistributedTrainable.__new__(DistributedTrainable)
    with pytest.raises(DamagedCheckpointError, match="is gone"):
        trainable.restore(Checkpoint.from_directory(tmp_path / "gone"))

    def load(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("trainables.checkpoint.load_state", load)
    with pytest.raises(RankLostError, match=r"cannot be read: .*Input/output error"):
        trainable.restore(Checkpoint.from_directory(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_costs_its_epoch_and_no_more(
    rank: int, run: Callable[[Any], Summary], experiment: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run(
        experiment(
            settings={"die_once": str(tmp_path / "died"), "die_on_rank": rank},
            search__num_trials=2,
            resources__workers_per_trial=2,
            resources__max_concurrent_trials=1,
        )
    )
    first, second = summary.search.trials
    assert (tmp_path / "died").exists()
    assert [first.faults, second.faults] == [1, 0]
    assert first.status is second.status is Status.COMPLETED
    assert sorted(first.results) == [1, 2, 3]
    assert summary.actors == 2  # one slot, one fault
    events = [json.loads(x) for x in (summary.folder / "journal.jsonl").read_text().splitlines()]
    (lost,) = [event for event in events if event["event"] == "interrupt"]
    if rank == 1:
        assert "rank 1 of 2 is gone" in lost["error"]["message"]
    results = [e["time"] for e in events if e["event"] == "result" and e["trial"] == 0]
    assert lost["time"] - results[0] < 60, "noticed by a time limit alone"


@pytest.mark.slow
def test_a_resumed_trial_draws_what_an_unbroken_one_draws(
    run: Callable[[Any], Summary], experiment: Callable[..., Any], tmp_path: Path
) -> None:
    """After a death and a restart from the checkpoint, every metric is the same."""
    broken = run(
        experiment(
            name="broken",
            settings={"die_once": str(tmp_path / "died"), "die_on_rank": 0},
            search__num_trials=1,
        )
    ).search.trials[0]
    whole = run(experiment(name="whole", search__num_trials=1)).search.trials[0]
    assert broken.faults == 1
    assert [broken.results[e]["loss"] for e in (1, 2, 3)] == [
        whole.results[e]["loss"] for e in (1, 2, 3)
    ]
