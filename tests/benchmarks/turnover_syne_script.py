"""A trial of Syne Tune in the turnover benchmark: the toy in one process, as far as it has come."""

import argparse
import time
from pathlib import Path

from syne_tune import Reporter

from tests.benchmarks.turnover_toy import (
    EPOCHS,
    evaluate,
    load,
    make_model,
    make_optimizer,
    save,
    train_once,
)

LONG_SECONDS = 60.0
"""What is to be paused would train on until then; it is ended long before."""


def main() -> None:
    """Train the epochs that are left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--pausing", type=int, required=True)
    parser.add_argument("--st_checkpoint_dir", type=Path, required=True)
    given, _ = parser.parse_known_args()
    model = make_model()
    optimizer = make_optimizer(model, given.lr)
    given.st_checkpoint_dir.mkdir(parents=True, exist_ok=True)
    state, report, epoch = given.st_checkpoint_dir / "state.pt", Reporter(), 0
    if state.exists():
        epoch = load(state, model, optimizer)
    while epoch < EPOCHS:
        loss = train_once(model, optimizer)
        epoch += 1
        save(state, model, optimizer, epoch)
        report(epoch=epoch, train_loss=loss, loss=evaluate(model))
        if given.pausing and epoch < EPOCHS:
            time.sleep(LONG_SECONDS)


if __name__ == "__main__":
    main()
