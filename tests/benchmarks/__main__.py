"""All benchmarks, one after the other, into BENCHMARKS.md: ``python -m tests.benchmarks``.

Sizes are small by default, so that it takes less than 25 minutes on two cores; ``--full`` takes
hours. ``--only`` runs some, and leaves what the others have in the file as it stands.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.harness import BUSY, ROOT, describe_machine, load, make_parser

PATH = ROOT / "BENCHMARKS.md"
HEAD = """# Benchmarks

Measured by `python -m tests.benchmarks` (extra `bench`), which writes this file, in less than 25
minutes on two cores. `--full` takes hours: larger sizes, and `scale_simulated`, `pretraining` and
`search_quality` too; figures in the README are of these. Each part has the command that repeats it,
whose `--help` says what its columns mean. Of a peer that is ahead, the part says by how much.
"""


class Part(NamedTuple):
    """A benchmark: the module and its arguments, small and full."""

    module: str
    small: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


PARTS = {
    "turnover": Part("turnover", ("--trials=20", "--peer-trials=4"), ("--peer-trials=8",)),
    "efficiency": Part("efficiency"),
    "start_up": Part("start_up"),
    "scale": Part("scale", ("--ray", "100", "1000"), ("--ray", "100", "1000", "5000")),
    "soak": Part("soak", ("--trials=300",)),
    "end_to_end": Part(
        "end_to_end", ("--trials=3", "--epochs=2", "--images=30"), ("--trials=32", "--epochs=2")
    ),
    "training_loop": Part("training_loop", ("--epochs=3",)),
    "feature_cache": Part("feature_cache", ("--trials=4", "--epochs=3", "--images=400"), ()),
}
FULL_ONLY = {
    "scale_simulated": Part("scale"),
    "pretraining": Part("pretraining"),
    "search_quality": Part("search_quality"),
}


def run(part: Part, arguments: tuple[str, ...]) -> tuple[str, list[str]]:
    """The text of a part's section, and what it says of peers that are ahead.

    Raises:
        subprocess.CalledProcessError: it failed.

    """
    module = f"tests.benchmarks.{part.module}"
    before, begin = load(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", module, *arguments, "--json", str(path)]
        env = {**os.environ, "COLUMNS": "120"}
        done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
        found: Any = json.loads(path.read_text())
    seconds = time.monotonic() - begin
    gaps = found.get("gaps", []) if isinstance(found, dict) else []
    return section(done.stdout.decode(), (module, *arguments), before, seconds, gaps), gaps


def section(
    output: str, command: tuple[str, ...], before: float, seconds: float, gaps: list[str]
) -> str:
    """A part in the file: the command, what it printed, and the honest rest."""
    day = datetime.now(UTC).date().isoformat()
    lines = [line.rstrip() for line in output.splitlines() if not line.endswith("...")]
    busy = (
        f" **Others used the machine** ({before:.0%} of it just before)." if before > BUSY else ""
    )
    text = f"`python -m {' '.join(command)}`, {day}, {seconds:.0f} s.{busy}\n\n"
    text += "```\n" + "\n".join(lines) + "\n```\n"
    if gaps:
        text += "\nPeers that are ahead:\n\n" + "".join(f"- {gap}\n" for gap in gaps)
    return text


def read_sections(text: str) -> dict[str, str]:
    """Name -> text, of the parts of a file."""
    pieces = re.split(r"^## (\S+)\n\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def join(sections: dict[str, str]) -> str:
    """The file."""
    machine = ", ".join(f"{k} {v}" for k, v in describe_machine("syne-tune", "optuna").items())
    parts = "".join(f"\n## {name}\n\n{text.strip()}\n" for name, text in sections.items())
    return f"{HEAD}\nVersions and machine of the last run: {machine}.\n{parts}"


def main() -> None:
    """Run what is asked for; a part that fails is said to have, and the others go on.

    Raises:
        SystemExit: a part failed.

    """
    parser = make_parser(__doc__)
    names = [*PARTS, *FULL_ONLY]
    parser.add_argument("--full", action="store_true", help="the larger sizes")
    parser.add_argument("--only", nargs="+", choices=names, help="some parts")
    parser.add_argument("--output", type=Path, default=PATH, help="the file (BENCHMARKS.md)")
    given = parser.parse_args()
    every = {**PARTS, **FULL_ONLY}
    chosen = given.only or (names if given.full else list(PARTS))
    written = read_sections(given.output.read_text()) if given.output.exists() else {}
    failed, gaps = [], {}
    for name in chosen:
        print(f"{name} ...", flush=True)
        part = every[name]
        try:
            written[name], gaps[name] = run(part, part.full if given.full else part.small)
        except subprocess.CalledProcessError:
            failed.append(name)
            continue
        given.output.write_text(join({n: written[n] for n in names if n in written}))
    if given.json:
        given.json.write_text(json.dumps({"machine": describe_machine(), "gaps": gaps}) + "\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what they printed is above")


if __name__ == "__main__":
    main()
