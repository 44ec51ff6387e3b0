"""Searches: a sampler, a rule, and the state machine that runs them. No Ray below this line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuner.search.settings import SearchSettings

if TYPE_CHECKING:  # ConfigSpace is slow to import, and reading a journal does not need it
    from ConfigSpace import ConfigurationSpace

    from tuner.search.search import EventLog, Rule, Sampler, Search

__all__ = ["SEARCHES", "SearchSettings", "build_rule", "build_sampler", "build_search"]

SEARCHES: dict[str, str] = {
    "grid": "run_all",
    "random": "run_all",
    "asha": "asha",
    "bohb": "hyperband",
}
"""Algorithm -> its rule (who goes on). What picks its configurations is in the settings."""


def build_search(
    settings: SearchSettings,
    space: "ConfigurationSpace",
    journal: "EventLog",
    **options: Any,
) -> "Search":
    """The search that ``settings`` describe, in the state that ``journal`` holds."""
    from search_spaces import default_configuration
    from tuner.search.given import given_configurations
    from tuner.search.search import Search

    sampler = build_sampler(settings, space)
    num_trials = settings.num_trials
    default: dict[str, Any] | None = default_configuration(space)
    if points := getattr(sampler, "points", None):
        num_trials, default = len(points), None
    return Search(
        sampler,
        build_rule(settings, num_trials),
        journal,
        num_trials=num_trials,
        max_epochs=settings.max_epochs,
        metric=settings.metric,
        mode=settings.mode,
        default=default,
        initial=[(config, "given") for config in given_configurations(settings, space)],
        **options,
    )


def build_sampler(settings: SearchSettings, space: "ConfigurationSpace") -> "Sampler":
    """What picks the configurations of ``space``."""
    from tuner.search.samplers.grid import GridSampler
    from tuner.search.samplers.random import RandomSampler

    if settings.picks_by == "grid":
        return GridSampler(space)
    if settings.picks_by == "random":
        return RandomSampler(space, settings.seed)
    if settings.picks_by == "gp":
        from tuner.search.samplers.gaussian_process import GaussianProcessSampler

        return GaussianProcessSampler(space, settings.seed)
    if settings.picks_by == "tpe":
        from tuner.search.samplers.parzen import ParzenSampler

        return ParzenSampler(space, settings.seed)
    from tuner.search.samplers.kde import KDESampler

    return KDESampler(space, settings.seed)


def build_rule(settings: SearchSettings, num_trials: int) -> "Rule":
    """The rule of the algorithm, for so many trials; the baseline, in all but a grid, is one."""
    from tuner.search.rules.asha import Asha
    from tuner.search.rules.hyperband import HyperBand
    from tuner.search.rules.run_all import RunAll

    rules: dict[str, Callable[[], Rule]] = {
        "run_all": lambda: RunAll(settings.max_epochs),
        "asha": lambda: Asha(settings.max_epochs, settings.reduction_factor),
        "hyperband": lambda: HyperBand(
            settings.max_epochs, settings.reduction_factor, num_trials - 1
        ),
    }
    return rules[SEARCHES[settings.algorithm]]()
