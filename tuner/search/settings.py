"""The ``search`` section of an experiment."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """How to search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["grid", "random", "asha", "bohb"] = Field(
        "bohb", description="how configurations are picked and who goes on"
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
