"""How good a configuration each search finds for the same budget: ours, and its peers.

``python -m tests.benchmarks.search_quality`` prints, for each family of tasks, the regret after 25,
50 and 100 % of 40 full evaluations as a ratio to random search's, and ours as a ratio to the best
peer's. Each search runs under a simulated clock on tabulated or synthetic losses, with the same
seeds. Every cell is kept in a file as it ends, so that a run that was broken off goes on.

Settings of ours were chosen on the half ``tuning``; the half ``reported`` is what counts.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from tests.benchmarks.harness import make_parser
from tests.benchmarks.search_quality.contenders import (
    CONTENDERS,
    FULL_EVALUATIONS,
    OURS,
    PEERS,
    run_contender,
)
from tests.benchmarks.search_quality.ratios import Array, ratio
from tests.benchmarks.search_quality.tasks import FAMILIES, REPORTED, TUNING, load_task

SHARES = (0.25, 0.5, 1.0)
SETTINGS = {
    "seed": ("seed", 1),
    "epoch": ("epoch", 1),
    "seed-4": ("seed", 4),
    "epoch-4": ("epoch", 4),
    "conditional": ("conditional", 1),
}
"""Name -> the family of its tasks, and the slots."""
Cell = tuple[str, str, int, int]
"""Contender, task, seed, slots."""


def run_cell(cell: Cell) -> dict[str, Any]:
    """One search on one task with one seed: its regrets at each share of the budget."""
    contender, name, seed, slots = cell
    task, started = load_task(name), time.perf_counter()
    regrets, trials = run_contender(contender, task, seed, slots)
    epochs = FULL_EVALUATIONS * task.max_epochs
    return {
        "cell": list(cell),
        "regrets": [regrets[int(share * epochs) - 1] for share in SHARES],
        "trials": trials,
        "seconds": time.perf_counter() - started,
    }


def read_cells(path: Path, again: Iterable[str] = ()) -> dict[Cell, dict[str, Any]]:
    """What earlier runs have left, but for contenders that are to be run ``again``."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {tuple(r["cell"]): r for r in records if r["cell"][0] not in set(again)}


def run_cells(cells: list[Cell], path: Path, processes: int) -> None:
    """Run ``cells`` and append each to ``path`` as it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    single = partial(threadpool_limits, 1)  # or the processes' threads wait for each other
    with path.open("a") as file, ProcessPoolExecutor(processes, initializer=single) as pool:
        for count, record in enumerate(pool.map(run_cell, cells), start=1):
            print(json.dumps(record), file=file, flush=True)
            if count % 50 == 0:
                print(f"{count} of {len(cells)}", file=sys.stderr)


def table_of(
    setting: str, half: str, contenders: list[str], seeds: int, cells: dict[Cell, dict[str, Any]]
) -> dict[str, Any]:
    """The figures of one setting on one half of its tasks."""
    family, slots = SETTINGS[setting]
    names = FAMILIES[family][half]

    def regrets(contender: str, share: int) -> Array:
        found = [
            [cells[contender, name, seed, slots]["regrets"][share] for seed in range(seeds)]
            for name in names
        ]
        return np.array(found)

    random = [regrets("random", share) for share in range(3)]
    rows = {
        contender: [asdict(ratio(regrets(contender, i), random[i], random[i])) for i in range(3)]
        for contender in contenders
    }
    pace = {}
    for contender in contenders:
        runs = [cells[contender, n, s, slots] for n, s in product(names, range(seeds))]
        pace[contender] = 1e3 * sum(r["seconds"] for r in runs) / sum(r["trials"] for r in runs)
    peers = [c for c in contenders if c in PEERS]
    best = min(peers, key=lambda c: rows[c][-1]["value"], default=None)
    against = {
        ours: asdict(ratio(regrets(ours, 2), regrets(best, 2), random[2]))
        for ours in contenders
        if best and ours in OURS
    }
    return {
        "setting": setting, "half": half, "tasks": list(names), "seeds": seeds,
        "to_random": rows, "best_peer": best, "to_best_peer": against, "ms_a_trial": pace,
    }  # fmt: skip


def print_table(figures: dict[str, Any], console: Console) -> None:
    """One setting's table; an interval is of 90 %."""
    title = (
        f"{figures['setting']}, {figures['half']} ({', '.join(figures['tasks'])}), "
        f"{figures['seeds']} seeds"
    )
    table = Table(title=title, title_justify="left")
    best = figures["best_peer"]
    for heading in ("search", "25 %", "50 %", "100 %", f"100 % ÷ {best}", "ms a trial"):
        table.add_column(heading, justify="left" if heading == "search" else "right")
    for contender, ratios in figures["to_random"].items():
        cells = [_shown(r) for r in ratios]
        against = figures["to_best_peer"].get(contender)
        pace = f"{figures['ms_a_trial'][contender]:.1f}"
        table.add_row(contender, *cells, _shown(against) if against else "", pace)
    console.print(table)


def _shown(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} \\[{found['low']:.2f}, {found['high']:.2f}]"


def _cells(
    settings: list[str], halves: list[str], contenders: list[str], seeds: int
) -> Iterator[Cell]:
    for setting, half in product(settings, halves):
        family, slots = SETTINGS[setting]
        for name, contender, seed in product(FAMILIES[family][half], contenders, range(seeds)):
            yield contender, name, seed, slots


def main() -> None:
    """Run what is missing, print the tables."""
    listed = partial(str.split, sep=",")
    parser = make_parser(__doc__)
    parser.prog = "python -m tests.benchmarks.search_quality"
    names = ", ".join(CONTENDERS)
    parser.add_argument(
        "--settings", type=listed, default=list(SETTINGS), help=f"{', '.join(SETTINGS)} (all)"
    )
    parser.add_argument(
        "--half",
        choices=[TUNING, REPORTED, "both"],
        default=REPORTED,
        help=f"of the tasks; the other half was there to choose defaults on ({REPORTED})",
    )
    parser.add_argument(
        "--contenders", type=listed, default=list(CONTENDERS), help=f"{names} (all)"
    )
    parser.add_argument("--seeds", type=int, default=20, help="of each search (20)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="at once (one a core)"
    )
    parser.add_argument(
        "--again", type=listed, default=[], help="contenders to run anew, though --results has them"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("build/search_quality.jsonl"),
        help="the file that keeps what is done, so that it can be gone on with (%(default)s)",
    )
    given = parser.parse_args()
    halves = [TUNING, REPORTED] if given.half == "both" else [given.half]
    contenders = ["random", *[c for c in given.contenders if c != "random"]]

    known = read_cells(given.results, given.again)
    wanted = list(dict.fromkeys(_cells(given.settings, halves, contenders, given.seeds)))
    for name in dict.fromkeys(cell[1] for cell in wanted):
        load_task(name)  # its table is made here, once, and not by each process
    run_cells([c for c in wanted if c not in known], given.results, given.processes)

    cells = read_cells(given.results)  # of a cell that was run again, the last record counts
    figures = [
        table_of(setting, half, contenders, given.seeds, cells)
        for setting, half in product(given.settings, halves)
    ]
    console = Console(width=120 if not sys.stdout.isatty() else None)
    for found in figures:
        print_table(found, console)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
