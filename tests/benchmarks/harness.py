"""What the benchmarks share: a side in a process of its own, a table, a record, the machine."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 1800
"""A side that takes longer hangs."""
BUSY = 0.5
"""Share of the cores in use above which figures are of a machine that others use."""


class BenchmarkError(RuntimeError):
    """A side could not be measured."""


class Ran(NamedTuple):
    """A side that came to its end."""

    seconds: float
    """Wall time of its process."""
    told: Any
    """What it left in ``told.json``."""


def run_side(module: str, *arguments: object, python: str = sys.executable) -> Ran:
    """Run ``python -m tests.benchmarks.MODULE ARGUMENTS FOLDER``, which writes ``told.json`` there.

    The folder is new, and thrown away with what else is in it; a Ray cluster that is started has
    its files below it.

    Raises:
        BenchmarkError: it failed, or hangs.

    """
    with new_folder() as folder:
        command = [python, "-m", f"tests.benchmarks.{module}", *map(str, arguments), str(folder)]
        begin = time.monotonic()
        code = _run(command, folder)
        seconds = time.monotonic() - begin
        if code != 0:
            how = f"took more than {LIMIT_SECONDS} s" if code is None else f"ended with code {code}"
            last = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-15:])
            name = " ".join(command[2:-1])
            raise BenchmarkError(f"{name} {how}; its last words:\n{last}")
        return Ran(seconds, json.loads((folder / "told.json").read_text()))


def tell(folder: Path, told: Any) -> None:
    """Leave for :func:`run_side` what a side has found."""
    (folder / "told.json").write_text(json.dumps(told))


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder that is thrown away."""
    # sockets have short paths, so not below a long TMPDIR
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _run(command: list[str], folder: Path) -> int | None:
    """The exit code of a command whose output goes to ``log``; None: it took too long."""
    with (folder / "log").open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(folder), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            return process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def environment(folder: Path) -> dict[str, str]:
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


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The journal of the run in ``folder``."""
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


# -- what is shown --------------------------------------------------------------------------------


def describe_machine(*packages: str) -> dict[str, str | int]:
    """What the numbers hold for; ``packages``: the peers'."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "os": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "torch": version("torch"),
        "ray": version("ray"),
        **{package: found for package in packages if (found := _version(package))},
    }


def _cpu() -> str:
    """The model, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load() -> float:
    """Share of the machine's cores that are in use for a second, before a benchmark begins."""
    return round(psutil.cpu_percent(interval=1) / 100, 2)


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line that begins as all do; its help is ``doc``, which explains the columns."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="a file to write the numbers to")
    return parser


def show_table(
    console: Console, title: str, headings: Sequence[str], rows: Mapping[str, Sequence[Any]]
) -> None:
    """A table with a row for each side; None is shown as a dash."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for name, cells in rows.items():
        table.add_row(name, *map(shown, cells))
    console.print(table)


def shown(cell: Any) -> str:
    """A cell's text: numbers to three digits, with what there is none of as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, str | int):
        return f"{cell:,}" if isinstance(cell, int) else cell
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:#.3g}".rstrip(".")


def show_target(console: Console, target: str, met: bool | None) -> None:
    """Whether a target is met; None: that cannot be told."""
    words = {True: "met", False: "NOT met", None: "lost in the noise"}
    console.print(f"target {target}: {words[met]}")


def finish(console: Console, record: Mapping[str, Any], path: Path | None) -> None:
    """Show the machine, and write the numbers to ``path``, if that is wanted."""
    console.print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    if path:
        path.write_text(json.dumps(record, indent=2) + "\n")
