"""Images a second, and memory of each rank, for each way to share the work on one network.

Run as ``python -m tests.benchmarks.training_loop --parallel``. All layers of an EfficientNet-Lite0
are trained on a part of the digits, with AdamW, in new processes for each way: a rank on each GPU
where there are two or more, else two on CPUs.
"""

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table

from tests.benchmarks.harness import describe_machine
from trainables import Context
from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.memory import MB, host_mb
from trainables.parallelism import WAYS, local

WARM_UP = 1
"""Epochs of each way before those that count."""
COLUMNS = ("weights, gradients, optimizer", "peak on the GPU", "RAM of the process")


class Job(NamedTuple):
    """What all ranks of one way are told."""

    config: Settings
    ranks: int
    epochs: int
    threads: int
    folder: Path


def measure(settings: dict[str, Any], epochs: int, threads: int) -> dict[str, dict[str, Any]]:
    """Way -> its images a second in each epoch and MB a rank, or why it was ``refused``."""
    gpus = torch.cuda.device_count()
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        config = Settings.model_validate({**settings, "parallel": way})
        try:
            alone = ImageClassification.one_process(config, gpus)
        except ValueError as error:
            found[way] = {"refused": str(error)}
            continue
        ranks = 1 if alone else gpus if gpus > 1 else 2
        with tempfile.TemporaryDirectory() as folder:
            job = Job(config, ranks, epochs, threads, Path(folder))
            mp.spawn(_train, (job,), nprocs=ranks)
            told = [
                json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)
            ]
        found[way] = {
            "images_per_second": round(median(told[0]["rates"]), 2),
            "rates": told[0]["rates"],
            "mb": {name: [mb for own in told for mb in own["mb"][name]] for name in COLUMNS},
        }
    return found


def _train(rank: int, job: Job) -> None:
    """One rank of one way: train, and leave ``RANK.json``."""
    torch.set_num_threads(job.threads)
    gpus = torch.cuda.device_count() if torch.cuda.device_count() > 1 else 0
    device = torch.device("cuda", rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if gpus else "gloo",
        init_method=f"file://{job.folder / 'rendezvous'}",
        rank=rank,
        world_size=job.ranks,
    )
    devices = gpus if gpus and job.ranks == 1 else 1
    context = Context(
        rank=rank,
        world_size=job.ranks,
        device=device,
        devices=devices,
        max_epochs=WARM_UP + job.epochs,
        cache_dir=job.folder / "cache",
        threads=job.threads,
    )
    task = ImageClassification(job.config, context)
    rates = []
    for epoch in range(WARM_UP + job.epochs):
        context.start_epoch(epoch)
        rates.append(task.train_epoch()["images_per_second"])
    own = range(rank, rank + devices) if gpus else []
    mb = {
        COLUMNS[0]: [round(_held(task) / MB, 1)],
        COLUMNS[1]: [round(torch.cuda.max_memory_allocated(gpu) / MB, 1) for gpu in own],
        COLUMNS[2]: [round(host_mb(), 1)],
    }
    told = {"rates": [round(rate, 2) for rate in rates[WARM_UP:]], "mb": mb}
    (job.folder / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def _held(task: ImageClassification) -> int:
    """Bytes of the weights that are trained here, their gradients, and the optimizer's state."""
    weights = sum(local(p).nbytes for p in task.optimization.parameters.values())
    return 2 * weights + task.optimization.state_bytes()


def show(ways: dict[str, dict[str, Any]], threads: int, console: Console) -> None:
    """The table, why a way was refused, and the machine."""
    table = Table(title="training, by way to share the work")
    measured = [row["mb"] for row in ways.values() if "mb" in row]
    columns = [name for name in COLUMNS if any(mb[name] for mb in measured)]
    for heading in ("", "images a second", *(f"{name}, MB a rank" for name in columns)):
        table.add_column(heading, justify="right" if heading else "left")
    for way, row in ways.items():
        if "refused" not in row:
            each = (" / ".join(f"{mb:.0f}" for mb in row["mb"][name]) for name in columns)
            table.add_row(way, f"{row['images_per_second']:.1f}", *each)
    console.print(table)
    for way, row in ways.items():
        if "refused" in row:
            console.print(f"{way}: refused: {row['refused']}")
    machine = {**describe_machine(), "threads": threads}
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
