"""A Task to look at a run by: it tells of GPUs that are not there, fails, or waits to be let go."""

import time
from pathlib import Path

from toy_task import Toy


class Held(Toy):
    """Trial by trial, as ``case`` says: runs out of memory, fails, or waits in its second epoch."""

    def train_epoch(self):
        case = self.config["case"]
        if case == "fails":
            raise ValueError("it fails on purpose")
        while case == "waits" and self.context.epoch and not Path(self.config["go"]).exists():
            time.sleep(0.1)
        return super().train_epoch()

    def evaluate(self):
        metrics = super().evaluate()
        metrics["oom_recoveries"] = 2 * (self.config["case"] == "recovers")
        for rank in range(self.context.world_size):
            metrics[f"gpu/rank{rank}/use_percent_mean"] = 80.0 + rank
            metrics[f"gpu/rank{rank}/memory_gb_max"] = 10.5 + rank
            metrics[f"gpu/rank{rank}/power_w_mean"] = 200.0 + rank
            metrics[f"gpu/rank{rank}/temperature_c_max"] = 60.0 + rank
        return metrics
