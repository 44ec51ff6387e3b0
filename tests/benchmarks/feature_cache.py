"""What computing things once is worth: the features of a frozen network, and decoded images.

Run from the repository's root: ``python -m tests.benchmarks.feature_cache``. First a search of
linear probes, one trial at a time on all cores, as a user runs it: without the cache of features,
then with it. Each search has a process, a Ray cluster and an empty cache folder of its own, so that
to fill the cache counts. Both train the same configurations from the same seeds, and how far their
results differ is shown. A short search, which is not counted, goes before them: it has the files of
Python's packages read. With ``--ranks 2`` a trial's cores are divided between two ranks; what these
say to each other in every step is then most of an epoch on cached features.

Then 2,000 JPEGs of about 500 px, made here, are decoded in each of 5 epochs by the streaming loader
with a worker a core, and after that once into the stored array, which is then read for 5 epochs.
All files are read before either.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.benchmarks.harness import BenchmarkError, describe_machine, environment, make_parser
from trainables.image_classification.config import Settings
from trainables.image_classification.data import load_data
from tuner.history import read_history
from tuner.search.trial import Trial

CACHED, RECOMPUTED = "computed once", "in every epoch"
COMPARED = ("val_accuracy", "val_loss")
LOADING_EPOCHS, LOADING_BATCH = 5, 32
CLASSES = 10
_SIZES = ((500, 375), (375, 500), (500, 500), (500, 333))
"""Width and height of the JPEGs, in turn."""


@dataclass(frozen=True)
class Searched:
    """One search."""

    wall_seconds: float
    """From the start of its process to its end."""
    search_seconds: float
    """From when Ray was up to the last trial's end: workers start in it, Ray itself does not."""
    trials: list[Trial]


@dataclass(frozen=True)
class Loaded:
    """What it takes to have all images in memory, an epoch after the other."""

    opening_seconds: float
    """Before the first epoch: decoding into the array, or a look for files that are no images."""
    epoch_seconds: list[float]

    @property
    def seconds(self) -> float:
        """Of all epochs, without what goes before them."""
        return sum(self.epoch_seconds)


# -- a search of linear probes --------------------------------------------------------------------


def run_search(trials: int, epochs: int, ranks: int, *, cache_features: bool) -> Searched:
    """Run the experiment by the command line.

    Raises:
        BenchmarkError: it failed, or a trial did.

    """
    # sockets have short paths, so not below a long TMPDIR
    with tempfile.TemporaryDirectory(
        prefix="features-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        experiment = make_experiment(trials, epochs, ranks, folder, cache_features=cache_features)
        file = folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(experiment))
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tuner", "run", file],
            check=False, cwd=folder, env=environment(folder),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wall = time.monotonic() - begin
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-15:])
            raise BenchmarkError(f"the search ended with code {done.returncode}:\n{last}")
        search = read_history(folder / "runs" / experiment["name"]).search
    unfinished = [trial.number for trial in search.trials if epochs not in trial.results]
    if unfinished or len(search.trials) != trials:
        raise BenchmarkError(
            f"{len(search.trials)} of {trials} trials ran, and {unfinished} not to the end"
        )
    return Searched(wall, search.seconds, search.trials)


def make_experiment(
    trials: int, epochs: int, ranks: int, folder: Path, *, cache_features: bool
) -> dict[str, Any]:
    """A random search of linear probes on the digits, one trial at a time."""
    return {
        "name": "probes",
        "settings": {
            "data": "digits",
            "image_size": 64,
            "random_crop": False,
            "cache_features": cache_features,
        },
        "search_space": "linear_probe",
        "search": {"algorithm": "random", "num_trials": trials, "max_epochs": epochs},
        "resources": {
            "workers_per_trial": ranks,
            "cpus_per_worker": (os.cpu_count() or 1) // ranks,
            "max_concurrent_trials": 1,
        },
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }


def differences(these: list[Trial], those: list[Trial], epoch: int) -> dict[str, Any]:
    """How two runs of the same trials differ after ``epoch`` epochs.

    ``same``: trials whose accuracy is equal, and the loss within 0.1 %. The rest is rounding (a
    last batch of another size goes through other kernels) that a learning rate near 1 has
    magnified. ``largest``: metric -> the largest difference.

    Raises:
        BenchmarkError: they are not the same trials.

    """
    pairs = list(zip(these, those, strict=True))
    if any(a.config != b.config for a, b in pairs):
        raise BenchmarkError("the two searches tried other configurations")
    found = [(a.results[epoch], b.results[epoch]) for a, b in pairs]
    same = [
        a["val_accuracy"] == b["val_accuracy"]
        and math.isclose(a["val_loss"], b["val_loss"], rel_tol=1e-3)
        for a, b in found
    ]
    largest = {name: max(abs(a[name] - b[name]) for a, b in found) for name in COMPARED}
    return {"same": sum(same), "largest": largest}


def measure_search(trials: int, epochs: int, ranks: int, console: Console) -> dict[str, Any]:
    """Both searches and how they compare."""
    console.print("warming up ...", style="dim")
    run_search(1, 1, ranks, cache_features=True)
    console.print(f"{trials} probes, features computed {RECOMPUTED} ...", style="dim")
    recomputed = run_search(trials, epochs, ranks, cache_features=False)
    console.print(f"{trials} probes, features {CACHED} ...", style="dim")
    cached = run_search(trials, epochs, ranks, cache_features=True)
    sides = {RECOMPUTED: recomputed, CACHED: cached}
    fields = ("wall_seconds", "search_seconds")
    return {
        "trials": trials,
        "epochs": epochs,
        "ranks": ranks,
        **{name: {f: round(getattr(of, f), 2) for f in fields} for name, of in sides.items()},
        "ratio": {f: round(getattr(recomputed, f) / getattr(cached, f), 2) for f in fields},
        "differences": differences(recomputed.trials, cached.trials, epochs),
    }


# -- loading --------------------------------------------------------------------------------------


def write_images(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs into class sub-folders: smooth, with grain, as large as photos."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = _SIZES[number % len(_SIZES)]
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 8, (height, width, 1))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        file = folder / f"class_{number % CLASSES}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, quality=90)


def load(data: Path, cache_dir: Path, cache_bytes: int) -> Loaded:
    """Open the images, and go through all of them in each epoch, in random order."""
    settings = Settings(data=str(data))
    begin = time.perf_counter()
    images = load_data(settings, cache_dir, cache_bytes, len(os.sched_getaffinity(0))).joined()
    opening, epochs = time.perf_counter() - begin, []
    for epoch in range(LOADING_EPOCHS):
        begin = time.perf_counter()
        seen = sum(len(targets) for _, targets in images.batches(_batches(len(images), epoch)))
        epochs.append(time.perf_counter() - begin)
        if seen != len(images):
            raise BenchmarkError(f"{seen} of {len(images)} images came")
    return Loaded(opening, epochs)


def _batches(count: int, epoch: int) -> list[list[int]]:
    order = np.random.default_rng(epoch).permutation(count).tolist()
    return [order[start : start + LOADING_BATCH] for start in range(0, count, LOADING_BATCH)]


def measure_loading(count: int, console: Console) -> dict[str, Any]:
    """Both ways to load, and how they compare."""
    with tempfile.TemporaryDirectory() as name:
        data, cache = Path(name, "images"), Path(name, "cache")
        console.print(f"writing {count} JPEGs ...", style="dim")
        write_images(data, count)
        read = sum(len(file.read_bytes()) for file in _files(data))
        console.print("decoding in every epoch ...", style="dim")
        streamed = load(data, cache / "none", cache_bytes=0)
        console.print("decoding once ...", style="dim")
        stored = load(data, cache / "stored", cache_bytes=10**10)
    return {
        "images": count,
        "kb_an_image": round(read / 1000 / count, 1),
        "image_size": Settings.model_fields["image_size"].default,
        "epochs": LOADING_EPOCHS,
        RECOMPUTED: {**asdict(streamed), "seconds": round(streamed.seconds, 2)},
        CACHED: {**asdict(stored), "seconds": round(stored.seconds, 2)},
        "ratio": round(_in_all(streamed) / _in_all(stored), 2),
        "ratio_without_look": round(streamed.seconds / _in_all(stored), 2),
        "ratio_of_epochs": round(streamed.seconds / stored.seconds, 1),
    }


def _in_all(loaded: Loaded) -> float:
    return loaded.opening_seconds + loaded.seconds


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


# -- what is shown --------------------------------------------------------------------------------


def show_search(found: dict[str, Any], console: Console) -> None:
    """The table of the searches."""
    probes = f"{found['trials']} linear probes of {found['epochs']} epochs"
    title = f"{probes}, digits at 64 px, ranks: {found['ranks']}"
    table = Table(title=title)
    for heading in ("features", "wall seconds", "without Ray's start"):
        table.add_column(heading, justify="left" if heading == "features" else "right")
    for name in (RECOMPUTED, CACHED):
        table.add_row(name, *(f"{seconds:,.1f}" for seconds in found[name].values()))
    table.add_row("ratio", *(f"{ratio:.2f}" for ratio in found["ratio"].values()))
    console.print(table)
    same, largest = found["differences"].values()
    most = ", ".join(f"{name} {most:.3g}" for name, most in largest.items())
    console.print(
        f"the same results: {same} of {found['trials']} trials; largest difference: {most}"
    )


def show_loading(found: dict[str, Any], console: Console) -> None:
    """The table of the two ways to load."""
    epochs = found["epochs"]
    title = f"{found['images']} JPEGs of {found['kb_an_image']} KB, for {found['image_size']} px"
    table = Table(title=title)
    for heading in ("decoded", "before, seconds", f"{epochs} epochs, seconds"):
        table.add_column(heading, justify="left" if heading == "decoded" else "right")
    for name in (RECOMPUTED, CACHED):
        of = found[name]
        table.add_row(name, f"{of['opening_seconds']:.1f}", f"{of['seconds']:.1f}")
    console.print(table)
    console.print(
        f"ratio: {found['ratio']:.2f} in all; {found['ratio_without_look']:.2f} without the look "
        f"at every file before streaming; of the epochs alone {found['ratio_of_epochs']:.1f}"
    )


def main() -> None:
    """Measure both parts and show them.

    Raises:
        SystemExit: a side could not be measured, or Ctrl-C.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=32, help="of each search (32)")
    parser.add_argument("--epochs", type=int, default=5, help="of each trial (5)")
    parser.add_argument("--ranks", type=int, default=1, help="of each trial (1)")
    parser.add_argument("--images", type=int, default=2000, help="to load (2,000)")
    given = parser.parse_args()
    console = Console(highlight=False)
    record: dict[str, Any] = {"machine": describe_machine()}
    try:
        record["search"] = measure_search(given.trials, given.epochs, given.ranks, console)
        show_search(record["search"], console)
        record["loading"] = measure_loading(given.images, console)
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    show_loading(record["loading"], console)
    console.print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
