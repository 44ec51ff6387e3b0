"""What each extra trial costs: ours beside the recipe that Ray documents for Tune over Ray Train.

Run from the repository's root: ``python -m tests.benchmarks.turnover``. Both sides train the same
linear layer for 3 epochs on 2 gloo ranks, one trial at a time, each search in a process and on a
local Ray cluster of its own. An extra trial is measured twice: by the wall time of a search of N
trials against a search of one, and within the search of N, from the last result of its first trial
to that of its last. The first is the coarser: two starts of a cluster differ by seconds, so take
more trials, or a quiet machine. The recipe goes first, so that cold file caches do not help ours.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
TUNER, RECIPE = "tuner", "recipe"
MOST_SECONDS, LEAST_RATIO = 0.5, 50.0
"""The targets: ours at most so many seconds an extra trial, and at most 1/50 of the recipe's."""
LIMIT_SECONDS = 1800
"""A search that takes longer hangs."""
MEASURES = {"extra_by_wall": "by wall time", "extra_within_run": "within one run"}


class BenchmarkError(RuntimeError):
    """A side could not be measured."""


@dataclass(frozen=True)
class Cost:
    """Wall seconds of one side."""

    trials: int
    first_trial: float
    """The search of one trial, from the start of its process to its end."""
    all_trials: float
    """The search of all trials, likewise."""
    extra_by_wall: float
    extra_within_run: float


def measure(side: str, trials: int, console: Console) -> Cost:
    """Run a side twice: with one trial, and with ``trials``."""
    first, _ = run_search(side, 1, console)
    wall, ends = run_search(side, trials, console)
    return Cost(
        trials=trials,
        first_trial=round(first, 3),
        all_trials=round(wall, 3),
        extra_by_wall=round((wall - first) / (trials - 1), 4),
        extra_within_run=round((ends[-1] - ends[0]) / (trials - 1), 4),
    )


def run_search(side: str, trials: int, console: Console) -> tuple[float, list[float]]:
    """One search in a process of its own: its wall seconds, and when each trial ended.

    Raises:
        BenchmarkError: it failed, or hangs.

    """
    # sockets have short paths, so not below a long TMPDIR
    with tempfile.TemporaryDirectory(
        prefix="turnover-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        console.print(f"{side}: {_count(trials)} ...", style="dim")
        begin = time.monotonic()
        _run_module(side, trials, folder)
        wall = time.monotonic() - begin
        ends: list[float] = json.loads((folder / "ends.json").read_text())
    return wall, ends


def _run_module(side: str, trials: int, folder: Path) -> None:
    command = [sys.executable, "-m", f"tests.benchmarks.turnover_{side}", str(trials), str(folder)]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(folder), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    if code != 0:
        how = f"took more than {LIMIT_SECONDS} s" if code is None else f"ended with code {code}"
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BenchmarkError(
            f"{side}: the search with {_count(trials)} {how}; its last words:\n{last}"
        )


def _count(trials: int) -> str:
    return f"{trials} trial{'s' * (trials != 1)}"


def _environment(folder: Path) -> dict[str, str]:
    """A cluster of its own, with its files in ``folder``."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return {**kept, **own}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs; Ray ends its cluster with it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_targets(ours: Cost, peer: Cost) -> dict[str, dict[str, bool | None]]:
    """Target -> measure -> whether it is met; None where the measure is lost in the noise."""
    targets: dict[str, dict[str, bool | None]] = {}
    for measure, label in MEASURES.items():
        our, their = getattr(ours, measure), getattr(peer, measure)
        known = our > 0 and their > 0
        met = {
            f"an extra trial <= {MOST_SECONDS:g} s": our <= MOST_SECONDS,
            f"<= 1/{LEAST_RATIO:g} of the recipe's": our * LEAST_RATIO <= their,
        }
        for target, is_met in met.items():
            targets.setdefault(target, {})[label] = is_met if known else None
    return targets


def describe_machine() -> dict[str, str | int]:
    """What the numbers hold for."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": version("torch"),
        "ray": version("ray"),
    }


def ratio(ours: float, theirs: float) -> float | None:
    """How many times more the recipe's is; None where ours is lost in the noise."""
    return round(theirs / ours, 1) if ours > 0 else None


def show(ours: Cost, peer: Cost, console: Console) -> None:
    """The table, the machine, and which targets are met."""
    table = Table(title="wall seconds, 2 gloo ranks, 3 epochs of a linear layer")
    if min(ours.extra_by_wall, peer.extra_by_wall) <= 0:
        table.caption = "below 0: less than what two starts of a cluster differ by"
    sides = [f"{side}, {_count(cost.trials)}" for side, cost in ((TUNER, ours), (RECIPE, peer))]
    for heading in ("", *sides, "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {"first_trial": "first trial, with the start"}
    rows |= {measure: f"extra trial, {label}" for measure, label in MEASURES.items()}
    for field, label in rows.items():
        our, their = getattr(ours, field), getattr(peer, field)
        times = ratio(our, their)
        table.add_row(label, f"{our:.3f}", f"{their:.3f}", f"{times:,.1f}" if times else "-")
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    words = {True: "met", False: "NOT met", None: "lost in the noise"}
    for target, by_measure in check_targets(ours, peer).items():
        verdicts = ", ".join(f"{words[met]} {label}" for label, met in by_measure.items())
        console.print(f"target {target}: {verdicts}")


def write_json(path: Path, ours: Cost, peer: Cost) -> None:
    """The same for machines."""
    fields = ("first_trial", *MEASURES)
    record = {
        "machine": describe_machine(),
        TUNER: asdict(ours),
        RECIPE: asdict(peer),
        "ratio": {field: ratio(getattr(ours, field), getattr(peer, field)) for field in fields},
        "targets": check_targets(ours, peer),
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=_at_least_two, default=20, help="of ours (default: 20)")
    parser.add_argument("--peer-trials", type=_at_least_two, default=3, help="of the recipe's (3)")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to")
    return parser.parse_args()


def _at_least_two(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of trials from 2 up")
    return int(text)


def main() -> None:
    """Measure both sides and show them.

    Raises:
        SystemExit: a side failed, or Ctrl-C.

    """
    arguments = parse_arguments()
    console = Console(highlight=False)
    try:
        peer = measure(RECIPE, arguments.peer_trials, console)
        ours = measure(TUNER, arguments.trials, console)
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    show(ours, peer, console)
    if arguments.json:
        write_json(arguments.json, ours, peer)


if __name__ == "__main__":
    main()
