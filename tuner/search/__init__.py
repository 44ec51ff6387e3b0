"""Searches: a sampler, a rule, and the state machine that runs them. No Ray below this line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuner.search.settings import SearchSettings

if TYPE_CHECKING:  # ConfigSpace is slow to import, and reading a journal does not need it
    from ConfigSpace import ConfigurationSpace

    from tuner.search.search import EventLog, Rule, Sampler, Search

__all__ = ["SEARCHES", "SearchSettings", "build_rule", "build_search"]

SEARCHES: dict[str, tuple[str, str]] = {
    "grid": ("grid", "run_all"),
    "random": ("random", "run_all"),
    "asha": ("random", "asha"),
    "bohb": ("kde", "hyperband"),
}
"""Algorithm -> its sampler (which configuration next) and its rule (who goes on)."""


def build_search(
    settings: SearchSettings,
    space: "ConfigurationSpace",
    journal: "EventLog",
    **options: Any,
) -> "Search":
    """The search that ``settings`` describe, in the state that ``journal`` holds."""
    from search_spaces import default_configuration
    from tuner.search.search import Search

    sampler = _build_sampler(SEARCHES[settings.algorithm][0], space, settings.seed)
    num_trials = settings.num_trials
    initial = [default_configuration(space)]
    if points := getattr(sampler, "points", None):
        num_trials, initial = len(points), []
    return Search(
        sampler,
        build_rule(settings, num_trials),
        journal,
        num_trials=num_trials,
        max_epochs=settings.max_epochs,
        metric=settings.metric,
        mode=settings.mode,
        initial=initial,
        **options,
    )


def _build_sampler(name: str, space: "ConfigurationSpace", seed: int) -> "Sampler":
    if name == "grid":
        from tuner.search.samplers.grid import GridSampler

        return GridSampler(space)
    if name == "kde":
        from tuner.search.samplers.kde import KDESampler

        return KDESampler(space, seed)
    from tuner.search.samplers.random import RandomSampler

    return RandomSampler(space, seed)


def build_rule(settings: SearchSettings, num_trials: int) -> "Rule":
    """The rule of the algorithm, for so many trials."""
    from tuner.search.rules.asha import Asha
    from tuner.search.rules.hyperband import HyperBand
    from tuner.search.rules.run_all import RunAll

    rules: dict[str, Callable[[], Rule]] = {
        "run_all": lambda: RunAll(settings.max_epochs),
        "asha": lambda: Asha(settings.max_epochs, settings.reduction_factor),
        "hyperband": lambda: HyperBand(settings.max_epochs, settings.reduction_factor, num_trials),
    }
    return rules[SEARCHES[settings.algorithm][1]]()
