"""Ray Tune as it runs a search, with all of its own that the search has no need of turned off."""

from contextlib import nullcontext
from typing import Any

from tuner.cluster import environment
from tuner.experiment import Experiment
from tuner.storage import for_tune, is_remote
from tuner.trainable import Trainable, saves


def fit_with_tune(
    experiment: Experiment, trainable: Trainable, bridge: Any, *, joined: bool = False
) -> None:
    """Have Ray Tune run the search that ``bridge`` holds, until it is finished or interrupted.

    ``joined``: the cluster was there before, with workers of another environment.
    """
    from ray import tune

    from trainables.distributed import DistributedTrainable
    from tuner.search.tune_adapters import (
        SchedulerAdapter,
        SearchAdapter,
        TrialWatcher,
        in_idle_workers,
    )

    runs = DistributedTrainable if trainable.is_task else trainable.cls
    by_tune = not trainable.is_task and saves(trainable)
    settings = {
        **({"RAY_CHDIR_TO_TRIAL_DIR": 0} if joined else {}),  # Tune hands it on to those workers
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": 1,
        "TUNE_MAX_PENDING_TRIALS_PG": 10**6,  # the bridge has no more trials than slots
        "TUNE_GLOBAL_CHECKPOINT_S": 10**9,  # the journal is the state; Tune's own is not used
    }
    with environment(settings), nullcontext() if joined else in_idle_workers():
        tune.Tuner(
            runs,
            tune_config=tune.TuneConfig(
                search_alg=SearchAdapter(bridge),
                scheduler=SchedulerAdapter(bridge),
                num_samples=-1,
                reuse_actors=runs.reset_config is not tune.Trainable.reset_config,
                trial_name_creator=bridge.dirname,
                trial_dirname_creator=bridge.dirname,
            ),
            run_config=tune.RunConfig(
                name=experiment.name,
                **for_tune(experiment.storage),
                sync_config=tune.SyncConfig(
                    sync_artifacts=is_remote(experiment.storage),
                    sync_artifacts_on_checkpoint=True,
                ),
                callbacks=[TrialWatcher(bridge)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=int(by_tune)),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        ).fit()
