"""The other ranks of a trial, each in an actor; of torch, nothing is imported before it starts."""

from typing import Any

import ray
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


class RankLostError(RuntimeError):
    """A rank's process or connection is gone; the trial must go on in new processes."""


class WornOutError(RankLostError):
    """A process holds memory of earlier trials. The trial has lost nothing by its own fault."""


class Peer:
    """A :class:`trainables.rank.Rank`; ``abort`` reaches it while a call is under way."""

    def __init__(self, slot: int | None, rank: int, world_size: int, **options: Any) -> None:
        from trainables.process_group import use_interface_of
        from trainables.rank import Rank

        use_interface_of(ray.util.get_node_ip_address())
        self._title = title(slot, rank)
        self._rank = Rank(rank, world_size, **options)

    def __repr__(self) -> str:
        """What the dashboard calls this process."""
        return self._title

    def call(self, method: str, *args: Any) -> Any:
        """The outcome of one of the rank's methods."""
        return self._rank.call(method, *args)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abort(self) -> None:
        """Leave the process group, which fails the collective that a call may wait in."""
        from trainables.process_group import abort_group

        abort_group()


def start_peers(bundles: list[dict[str, float]], slot: int | None) -> list[Any]:
    """Ranks 1 and up of a trial, in the bundles of the placement group that this process is in.

    It waits for none of them.

    Args:
        bundles: the trial's, one a rank.
        slot: the place among those that hold a trial, for the dashboard.

    """
    return [
        _actor_class(rank, bundle).remote(slot, rank, len(bundles), **rank_options(bundle))
        for rank, bundle in enumerate(bundles[1:], start=1)
    ]


def rank_options(bundle: dict[str, float]) -> dict[str, Any]:
    """What a :class:`trainables.rank.Rank` is told of its resources."""
    return {"gpus": bundle.get("GPU", 0), "threads": max(1, int(bundle.get("CPU", 1)))}


def title(slot: int | None, rank: int) -> str:
    """What the dashboard calls the process of a rank."""
    return f"rank {rank}" if slot is None else f"slot {slot} rank {rank}"


def _actor_class(rank: int, bundle: dict[str, float]) -> Any:
    return ray.remote(concurrency_groups={"control": 1})(Peer).options(
        num_cpus=bundle.get("CPU", 0),
        num_gpus=bundle.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            get_current_placement_group(), placement_group_bundle_index=rank
        ),
    )
