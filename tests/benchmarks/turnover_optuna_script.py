"""A trial of Optuna in the turnover benchmark, on each rank that torchrun starts."""

import json
import sys
import time
from pathlib import Path

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.benchmarks.turnover_toy import (
    EPOCHS,
    evaluate,
    make_model,
    make_optimizer,
    save,
    train_once,
)


def main() -> None:
    """Train; rank 0 writes a checkpoint after each epoch, and when that was."""
    lr, written = float(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo")
    model = DistributedDataParallel(make_model())
    optimizer = make_optimizer(model, lr)
    times, loss = [], 0.0
    for epoch in range(1, EPOCHS + 1):
        train_once(model, optimizer)
        loss = evaluate(model)
        if dist.get_rank() == 0:
            save(written.with_suffix(".pt"), model, optimizer, epoch)
            times.append(time.time())
    if dist.get_rank() == 0:
        written.write_text(json.dumps({"times": times, "loss": loss}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
