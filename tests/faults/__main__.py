"""``python -m tests.faults --faults 200 --seed 0``: whole searches, and what befalls them.

Prints a line a run and a table of what struck; writes both as JSON. A run whose seed is S is
repeated by ``--faults 5 --seed S``. Exit code 1 where something was found wrong.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.faults.injector import WORKER_CPUS, Injector, Report
from tests.faults.schedule import FAULTS_A_RUN
from tests.test_nodes import Nodes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="at least so many (200)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first run; the next has one more (0)"
    )
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="begin no run after so many (any)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("faults.json"), help="the file to write (faults.json)"
    )
    asked = parser.parse_args()
    reports = suffer(asked.faults, asked.seed, asked.minutes)
    asked.json.write_text(json.dumps(summary(reports), indent=2) + "\n", encoding="utf-8")
    print(table(reports))
    sys.exit(any(report.wrong for report in reports))


def suffer(faults: int, seed: int, minutes: float) -> list[Report]:
    """Runs from ``seed`` on until so many faults have struck, on a cluster of their own."""
    deadline = time.monotonic() + 60 * minutes
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="tuner-nodes-", dir="/tmp") as folder:
        nodes = Nodes(Path(folder))
        try:
            nodes.head.wait()
            nodes.add(WORKER_CPUS).wait()
            injector = Injector(nodes.address, nodes, keep=True)
            while (left := faults - sum(map(_struck, reports))) > 0 and time.monotonic() < deadline:
                report = injector.run(seed + len(reports), min(left, FAULTS_A_RUN))
                reports.append(report)
                print(line(report), flush=True)
            injector.close()
        finally:
            nodes.stop()
    return reports


def line(report: Report) -> str:
    variant = report.schedule.variant
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(report.struck.items()))
    told = f"seed {report.schedule.seed}: {variant.algorithm}, {variant.ranks} ranks, "
    told += f"{variant.slots} slots, " + f"{variant.ending}, " * bool(variant.ending)
    told += f"{struck} ({report.seconds:.0f} s)"
    if not report.wrong:
        return told + ": right" + ", as unbroken" * report.compared
    again = f"python -m tests.faults --faults {FAULTS_A_RUN} --seed {report.schedule.seed}"
    return "\n    ".join([f"{told}: WRONG; again: {again}", *report.wrong])


def summary(reports: list[Report]) -> dict[str, object]:
    compared = [report for report in reports if report.compared and report.kills]
    return {
        "struck": dict(_total(report.struck for report in reports)),
        "missed": dict(_total(report.missed for report in reports)),
        "runs": len(reports),
        "kill_and_resume_compared": len(compared),
        "kills_in_them": sum(report.kills for report in compared),
        "seconds": round(sum(report.seconds for report in reports), 1),
        "wrong": {report.schedule.seed: report.wrong for report in reports if report.wrong},
    }


def table(reports: list[Report]) -> str:
    told = summary(reports)
    struck, missed = (_total(getattr(r, name) for r in reports) for name in ("struck", "missed"))
    lines = ["fault          struck  too late", "-" * 32]
    lines += [f"{kind:14} {struck[kind]:6} {missed[kind]:9}" for kind in sorted({*struck, *missed})]
    lines.append(f"{'all':14} {struck.total():6} {missed.total():9}")
    minutes = sum(report.seconds for report in reports) / 60
    lines.append(
        f"{len(reports)} runs in {minutes:.1f} min; {told['kill_and_resume_compared']} of them "
        f"were killed, resumed, and ended as an unbroken one ({told['kills_in_them']} kills); "
        f"{sum(bool(report.wrong) for report in reports)} runs wrong"
    )
    return "\n".join(lines)


def _struck(report: Report) -> int:
    return report.struck.total()


def _total(counters: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counters, Counter())


if __name__ == "__main__":
    main()
