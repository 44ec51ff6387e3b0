"""What fits, what grows, what is left: the rules, and then whole trials on real ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import EXAMPLES
from trainables import memory
from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.memory import MemoryWatch, growth, is_out_of_memory, largest_fitting, step_growth
from trainables.task import Context
from tuner.run import Summary, start_run
from tuner.search.trial import Status, trial_seed


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_known", {})


class Model:
    """Fits up to so many examples; counts how often it was tried."""

    def __init__(self, fits: int) -> None:
        self.fits, self.tried = fits, []

    def __call__(self, count: int) -> None:
        self.tried.append(count)
        if count > self.fits:
            raise torch.OutOfMemoryError(f"{count} are too many")


@pytest.mark.parametrize(
    ("wanted", "fits", "answer"),
    [(64, 100, (64, 0)), (64, 64, (64, 0)), (64, 17, (16, 2)), (7, 2, (1, 2)), (3, 0, (0, 2))],
)
def test_it_halves_until_it_fits(wanted: int, fits: int, answer: tuple[int, int]) -> None:
    assert largest_fitting(wanted, Model(fits), None) == answer


def test_what_fitted_is_remembered_by_kind() -> None:
    first, again, other = Model(20), Model(20), Model(20)
    assert largest_fitting(64, first, "a") == (16, 2)
    assert largest_fitting(64, again, "a") == (16, 0)
    assert largest_fitting(8, again, "a") == (8, 0)
    assert again.tried == []
    assert largest_fitting(64, other, "b") == (16, 2)


def test_a_larger_batch_is_tried_where_only_a_smaller_one_was() -> None:
    model = Model(100)
    largest_fitting(16, model, "a")
    assert largest_fitting(64, model, "a") == (64, 0)
    assert model.tried == [16, 64]


def test_without_a_kind_nothing_is_remembered() -> None:
    model = Model(20)
    largest_fitting(32, model, None)
    largest_fitting(32, model, None)
    assert model.tried == [32, 16, 32, 16]


def test_a_failure_in_mid_epoch_corrects_what_was_known() -> None:
    model = Model(100)
    largest_fitting(64, model, "a")
    memory.remember_failure("a", 64)
    assert largest_fitting(64, model, "a") == (32, 0)
    assert model.tried == [64, 32]


def test_a_failure_of_a_kind_that_was_never_tried_is_no_answer() -> None:
    """After a recovery, the next stage is unfrozen: that is of another kind."""
    memory.remember_failure("a", 32)
    assert largest_fitting(16, Model(100), "a") == (16, 0)


def test_what_did_not_fit_for_a_moment_is_tried_again() -> None:
    assert largest_fitting(8, Model(0), "a") == (0, 4)
    assert largest_fitting(8, Model(100), "a") == (8, 0)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def attempt(_: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        largest_fitting(4, attempt, None)


def test_the_hosts_own_error_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
    for text in ("CUDA error: out of memory", "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED when calling"):
        assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("index out of range"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_full_is_probed_and_given_back() -> None:
    free, _ = torch.cuda.mem_get_info()
    each = free // 6  # 4 fit, 8 do not

    def attempt(count: int) -> None:
        torch.empty(count * each, dtype=torch.uint8, device="cuda")

    assert largest_fitting(8, attempt, None) == (4, 1)
    assert torch.cuda.memory_reserved() == 0


def test_a_task_without_attempt_is_only_limited_after_a_failure() -> None:
    context = Context()
    assert context.micro_batch(32) == 32
    context.micro_batch_limit = 8
    assert context.micro_batch(32) == 8
    assert context.used_micro_batch == 8


def test_a_probe_counts_its_recoveries_and_remembers_for_the_next_trial() -> None:
    first, second = Context(probes=True), Context(probes=True)
    assert first.micro_batch(32, Model(10), "kind") == 8
    assert second.micro_batch(32, Model(10), "kind") == 8
    assert (first.oom_recoveries, second.oom_recoveries) == (2, 0)


def test_on_a_shared_gpu_nothing_is_remembered() -> None:
    first, second = (Context(probes=True, shares_device=True) for _ in range(2))
    first.micro_batch(32, Model(10), "kind")
    assert second.micro_batch(32, Model(100), "kind") == 32


def test_what_cannot_be_tried_begins_below_what_has_failed_in_mid_epoch() -> None:
    first, again, later = (Context(probes=True) for _ in range(3))
    assert first.micro_batch(32, None, "kind") == 32
    again.micro_batch_limit = 16  # it has failed with 32
    assert again.micro_batch(32, None, "kind") == 16
    assert later.micro_batch(32, None, "kind") == 16
    assert later.oom_recoveries == 0


def test_where_not_one_fits_the_error_says_so() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="not even one example fits into"):
        Context(probes=True).micro_batch(32, Model(0), "kind")


def test_growth_is_what_never_stops() -> None:
    assert growth([100, 300, 310, 320, 330, 340, 350]) == 50
    assert growth([100, 300, 310, 320, 330, 340]) == 0, "too early to tell"
    assert growth([100, 300, 310, 320, 320, 330, 340]) == 0, "it rested"
    assert growth([5, 5, 5, 5, 5, 5, 5, 6, 8, 10, 12, 14, 16]) == 10


def test_growth_within_an_epoch_goes_by_quarters() -> None:
    assert step_growth([50.0 + step for step in range(40)]) == 30
    assert step_growth([50.0 + step % 7 for step in range(40)]) == 0
    assert step_growth([1, 2, 3]) == 0


def test_the_host_is_measured_and_what_is_left_is_found() -> None:
    watch = MemoryWatch(torch.device("cpu"))
    assert watch.left_behind(0) == 0
    kept = torch.ones(400 * 2**18)
    assert watch.left_behind(0) == pytest.approx(400, abs=30)
    assert watch.left_behind(kept.nbytes) == 0, "kept on purpose"
    del kept
    assert watch.left_behind(0) == 0
    assert watch.epoch()["memory_mb"] > 50


@pytest.fixture
def run(ray_address: str) -> Callable[[Any], Summary]:
    return lambda experiment: start_run(experiment, address=ray_address, folder=EXAMPLES)


def test_a_task_that_leaks_is_named_and_one_that_does_not_is_not(
    run: Callable[[Any], Summary], experiment: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    space = {"hyperparameters": {"leak": {"type": "ordinal", "sequence": ["graph", "nothing"]}}}
    summary = run(
        experiment(
            trainable="leaky_task:Leaky",
            search_space=space,
            settings={"width": 1},
            search__algorithm="grid",
            search__metric="loss",
            search__max_epochs=8,
            resources__max_concurrent_trials=1,
        )
    )
    leaking, sound = summary.search.trials
    assert [m["tensor_growth"] for m in leaking.results.values()] == [0] * 6 + [50] * 2
    assert not any(m["tensor_growth"] for m in sound.results.values())
    assert not any(m["memory_growth_mb"] for m in sound.results.values())
    shown = capfd.readouterr().out
    assert "warning: trial 0 holds 50 more tensors" in shown
    assert "warning: trial 1" not in shown


def test_a_process_with_memory_of_earlier_trials_is_replaced(
    run: Callable[[Any], Summary], experiment: Callable[..., Any]
) -> None:
    space = {"hyperparameters": {"width": {"type": "ordinal", "sequence": [1, 2, 3]}}}
    search = (
        summary := run(
            experiment(
                trainable="leaky_task:Leaky",
                search_space=space,
                settings={"leak": "trial"},
                search__algorithm="grid",
                search__max_epochs=1,
                resources__max_concurrent_trials=1,
                resources__max_failures=0,
            )
        )
    ).search
    assert {trial.status for trial in search.trials} == {Status.COMPLETED}
    assert search.replacements == 1, "the first trial makes the baseline, the second is above it"
    assert [trial.faults for trial in search.trials] == [0, 0, 0]
    assert summary.actors == 2


DIGITS = {
    "data": "digits", "max_images_per_class": 8, "image_size": 16, "random_crop": False,
    "backbone": "test_efficientnet", "weights": "none", "freeze": "all",
    "batch_size": 16, "learning_rate": 0.01,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_trial_that_runs_out_of_memory_goes_on_with_the_same_batch(
    rank: int, run: Callable[[Any], Summary], experiment: Callable[..., Any], tmp_path: Path
) -> None:
    """On one rank of two: never; in the probe; in mid-epoch; and where not even one image fits."""
    cases = ["roomy", "in the probe", "in mid-epoch", "hopeless", "hopeless in mid-epoch"]
    summary = run(
        experiment(
            trainable="tight_task:Tight",
            settings={**DIGITS, "on_rank": rank},
            search_space={"hyperparameters": {"case": {"type": "ordinal", "sequence": cases}}},
            search__algorithm="grid",
            search__metric="val_loss",
            search__max_epochs=2,
            resources__workers_per_trial=2,
            resources__max_concurrent_trials=1,
        )
    )
    *recovered, hopeless, late = summary.search.trials
    assert summary.actors == 1, "the processes stay"
    told = [
        [(m["micro_batch"], m["oom_recoveries"]) for m in t.results.values()] for t in recovered
    ]
    assert told == [[(8, 0), (8, 0)], [(2, 2), (2, 0)], [(8, 0), (2, 2)]]
    for trial in recovered:
        assert trial.status is Status.COMPLETED
        for epoch, expected in enumerate(alone(trial.number, tmp_path), start=1):
            assert trial.results[epoch]["val_loss"] == pytest.approx(expected, rel=1e-4)
    for trial in (hopeless, late):
        assert trial.status is Status.FAILED
        assert trial.error["type"] == "OutOfMemoryError"
        assert trial.error["message"].startswith("not even one example fits into the memory")
    assert late.error["message"].endswith("smaller (1 images are too many)")
    assert late.epoch == 1, "the epoch before counts"


def alone(number: int, folder: Path) -> list[float]:
    """The validation losses of the same trial on one rank that has room enough."""
    context = Context(seed=trial_seed(0, number), max_epochs=2, cache_dir=folder)
    task = ImageClassification(Settings(**DIGITS), context)
    losses = []
    for epoch in range(2):
        context.start_epoch(epoch)
        task.train_epoch()
        losses.append(task.evaluate()["val_loss"])
    return losses
