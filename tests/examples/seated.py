"""A trainable that trains nothing: it tells what each of its ranks was given by the cluster."""

import json
import os
import time
from pathlib import Path

import ray
from ray.tune import Trainable

from trainables import peer, rank_group
from trainables.rank import Outcome


class Seat:
    """In the place of a Rank, which would want the GPU that is promised here and not there."""

    def __init__(self, rank, world_size, *, gpus, threads):
        self.options = {"gpus": gpus, "threads": threads}

    def call(self, method):
        return Outcome(getattr(self, method)())

    def seen(self):
        context = ray.get_runtime_context()
        return {
            **self.options,
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "node": context.get_node_id(),
            "pid": os.getpid(),
        }


class PeerSeat(Seat):
    def __init__(self, slot, rank, world_size, **options):
        super().__init__(rank, world_size, **options)


class Seated(Trainable):
    """Waits until ``together`` trials are there, then writes what its ranks see into ``folder``."""

    def setup(self, config):
        rank_group.Rank, peer.Peer = Seat, PeerSeat
        resources = self.trial_resources
        self.folder, self.together = Path(config["folder"]), config["together"]
        self.peers = peer.start_peers(resources.bundles, resources.slot)
        self.group = rank_group.RankGroup(resources.bundles[0], self.peers)

    def step(self):
        seats = self.group.call("seen").value
        path = self.folder / f"{self.trial_name}.json"
        path.write_text(json.dumps(seats))
        deadline = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < self.together and time.monotonic() < deadline:
            time.sleep(0.1)
        return {"loss": 0.0, "together": len(list(self.folder.iterdir()))}

    def cleanup(self):
        for one in self.peers:
            ray.kill(one)
