"""A rank that fails where the network is divided among ranks: none hangs, and none must go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EXAMPLES
from tests.trainables.test_memory import DIGITS, alone
from tuner.run import start_run
from tuner.search.trial import Status


@pytest.mark.slow
def test_what_one_rank_raises_reaches_the_others_in_the_midst_of_a_batch(
    ray_address: str, experiment: Callable[..., Any], tmp_path: Path
) -> None:
    """Too little memory is recovered from, another error fails the trial; the processes stay."""
    space = {
        "case": {"type": "ordinal", "sequence": ["broken", "in mid-epoch"]},
        "parallel": {"type": "ordinal", "sequence": ["fsdp", "pipeline"]},
    }
    summary = start_run(
        experiment(
            trainable="tight_task:Tight",
            settings={**DIGITS, "on_rank": 1},
            search_space={"hyperparameters": space},
            search__algorithm="grid",
            search__metric="val_loss",
            search__max_epochs=2,
            resources__workers_per_trial=2,
            resources__max_concurrent_trials=1,
        ),
        address=ray_address,
        folder=EXAMPLES,
    )
    assert summary.actors == 1
    trials = {(t.config["case"], t.config["parallel"]): t for t in summary.search.trials}
    for way in ("fsdp", "pipeline"):
        broken = trials["broken", way]
        assert broken.status is Status.FAILED
        assert broken.attempts == 1
        assert broken.error["type"] == "ValueError"
        assert broken.error["message"] == "it is broken"
        assert broken.error["rank"] == 1
        assert "_take" in broken.error["traceback"]
        tight = trials["in mid-epoch", way]
        assert tight.status is Status.COMPLETED
        told = [(m["micro_batch"], m["oom_recoveries"]) for m in tight.results.values()]
        assert told == ([(8, 0), (2, 2)] if way == "fsdp" else [(4, 0), (2, 1)])
        for epoch, expected in enumerate(alone(tight.number, tmp_path), start=1):
            assert tight.results[epoch]["val_loss"] == pytest.approx(expected, rel=1e-4)
