"""The score on test data: asked of the best model of a run alone, and once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuner.experiment import Experiment
from tuner.fields import CONFIG, ERROR, METRICS, or_null, read_object
from tuner.results import Best, write_json
from tuner.storage import checkpoint_at, is_remote
from tuner.trainable import Trainable

SCORE = "test.json"
"""In the run's folder: what the Task answered, for which model."""
_KEPT = {"origin": CONFIG, "metrics": METRICS, "error": or_null(ERROR)}
"""Key of it -> what it must be."""


@dataclass(frozen=True)
class Score:
    """What came of the test data."""

    origin: dict[str, Any]
    """Of the model that was scored: see :class:`tuner.results.Best`."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Empty: there are no test data, or ..."""
    error: dict[str, Any] | None = None
    """... the Task failed, and this is how; it is asked again when the run is resumed."""


def scores(trainable: Trainable, values: Mapping[str, Any]) -> bool:
    """Whether the trainable is a Task that has test data, under these settings."""
    has_test = getattr(trainable.cls, "has_test", None) if trainable.is_task else None
    if has_test is None:
        return False
    from trainables.rank import build_config

    return bool(has_test(build_config(trainable.cls, values)))


def read_score(run: Path, best: Best) -> Score | None:
    """The score of ``best`` that the run folder keeps; None: there is none, or of another model.

    Raises:
        UserError: the file is damaged.

    """
    path = run / SCORE
    if not path.exists():
        return None
    kept = read_object(path, _KEPT, _KEPT.keys())
    score = Score(**{key: kept[key] for key in _KEPT})
    return score if score.origin == best.origin else None


def score_best(experiment: Experiment, best: Best, spec: Mapping[str, Any]) -> Score:
    """Have the Task of ``best`` score itself, on a worker with the resources of one rank.

    Args:
        experiment: whose run keeps the score in its folder.
        best: the model; it was saved.
        spec: of the trial, for :class:`trainables.rank.TrialSpec`.

    """
    import ray
    from ray.exceptions import RayError

    resources = experiment.resources
    bundle = dict(resources.bundles()[0])
    cpus, gpus = bundle.pop("CPU"), bundle.pop("GPU", 0)
    ask = ray.remote(
        num_cpus=cpus,
        num_gpus=gpus,
        resources=bundle,
        max_calls=1,  # the process ends, and with it what it holds of the GPU
        max_retries=resources.max_failures,
    )(_ask)
    try:
        own = experiment.folder / "best/checkpoint"  # on object storage, this machine's alone
        checkpoint = best.checkpoint if is_remote(experiment.storage) else own
        place = experiment.storage, str(checkpoint)
        answer = ray.get(ask.remote(resources.bundles()[0], dict(spec), place))
    except RayError as error:  # the worker is lost, or cannot read what it needs
        cause = getattr(error, "cause", None) or error
        answer = {"error": {"type": type(cause).__name__, "message": str(cause).strip()}}
    score = Score(best.origin, **answer)
    write_json(experiment.folder / SCORE, asdict(score))
    return score


def _ask(bundle: dict[str, float], spec: dict[str, Any], place: tuple[str, str]) -> dict[str, Any]:
    """On the worker: build the Task as it was and ask for its score; metrics, or an error.

    ``place``: of the checkpoint, the storage and the path there.
    """
    from trainables.checkpoint import load_state
    from trainables.rank import TrialSpec
    from trainables.rank_group import RankGroup

    with checkpoint_at(*place) as checkpoint:
        group, saved = RankGroup(bundle), load_state(checkpoint)
    outcome = group.call("build", TrialSpec(**spec), saved["task"], saved["epoch"])
    if not outcome.failure:
        outcome = group.call_first("test")
        group.call_first("close")
    if outcome.failure:
        return {"error": vars(outcome.failure)}
    return {"metrics": outcome.value}
