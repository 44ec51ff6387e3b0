"""The ``search`` section of an experiment."""

from typing import Any, Literal

from pydantic import Field

from tuner.section import Section

SAMPLERS = {"grid": "grid", "random": "random", "asha": "random", "bohb": "kde"}
"""Algorithm -> the sampler it has where none is named."""


class SearchSettings(Section):
    """How to search."""

    algorithm: Literal["grid", "random", "asha", "bohb"] = Field(
        "bohb", description="how configurations are picked and who goes on"
    )
    sampler: Literal["random", "gp", "tpe", "kde"] | None = Field(
        None,
        description="asha, bohb: what picks configurations: draws, a Gaussian process, a tree of "
        "Parzen estimators, or hpbandster's kernel densities; null: asha draws, bohb has kde",
    )
    metric: str = Field("val_accuracy", description="the metric to search on, as the task names it")
    mode: Literal["min", "max"] = Field("max", description="whether less or more of it is better")
    num_trials: int = Field(
        16, ge=1, description="trials to start; a grid has its own number, and takes no notice"
    )
    max_epochs: int = Field(9, ge=1, description="epochs of a full trial")
    reduction_factor: int = Field(
        3, ge=2, description="asha, bohb: one in so many goes on from each rung"
    )
    seed: int = Field(0, ge=0, description="of everything random: the search and the training")
    initial: list[dict[str, Any]] = Field(
        default_factory=list,
        description="your own guesses, tried right after the default configuration; what a guess "
        "leaves out is as in the default",
    )
    warm_start: list[str] = Field(
        default_factory=list,
        description="run folders whose results the model learns from, and whose best "
        "configurations are tried first",
    )

    @property
    def picks_by(self) -> str:
        """The sampler's name: the one asked for, or the algorithm's own."""
        return self.sampler or SAMPLERS[self.algorithm]

    def model_post_init(self, _: Any) -> None:
        """Refuse what contradicts itself.

        Raises:
            ValueError: a search that has its own way to pick was given another.

        """
        if self.algorithm == "grid" and (self.initial or self.warm_start):
            raise ValueError(
                "algorithm is 'grid', which has its own points: initial and warm_start are for the "
                "other searches; leave them out"
            )
        if len(self.initial) >= self.num_trials:
            raise ValueError(
                f"initial has {len(self.initial)} configurations, and with the default one they "
                f"must fit into num_trials, {self.num_trials}; raise it"
            )
        if self.sampler and self.algorithm in ("grid", "random"):
            raise ValueError(
                f"sampler is {self.sampler!r} and algorithm is {self.algorithm!r}: a sampler is "
                "for asha and bohb; leave it out (--set search.sampler=null)"
            )
