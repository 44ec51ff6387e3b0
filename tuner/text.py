"""Words and figures of a run, for people: durations, values, configurations, errors, paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.cluster import is_job
from tuner.storage import uri_of

CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[\x00-\x1f\x7f-\x9f\ud800-\udfff]"
)
"""Colours, titles and other orders to a terminal, and what it cannot show: from elsewhere."""


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 05 s or 2 h 10 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def roughly(seconds: float) -> str:
    """Seconds that are an estimate: 35 s, 4 min or 2 h 10 min."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def figure(value: float) -> str:
    """A metric's value with four places, or four digits where those would not show it."""
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1e6 else f"{value:.4g}"


def describe(config: Mapping[str, Any]) -> str:
    """Hyperparameters in a line, numbers short."""
    return " ".join(assignments(config))


def assignments(config: Mapping[str, Any]) -> list[str]:
    """Each hyperparameter as name=value, numbers short."""
    return [
        f"{one_line(name)}={value:.4g}" if isinstance(value, float) else one_line(f"{name}={value}")
        for name, value in config.items()
    ]


def brief(error: Mapping[str, Any]) -> str:
    """An error in a line: its type and the first line of its message."""
    return f"{one_line(str(error['type']))}: {plain(str(error['message'])).strip()}"


def plain(text: str) -> str:
    """The first line of a text that has come from elsewhere, without control characters."""
    return CONTROL.sub("", text.strip().split("\n", maxsplit=1)[0])


def one_line(text: str) -> str:
    """All of a text that has come from elsewhere, in a line, without control characters."""
    return CONTROL.sub("", " ".join(text.splitlines()))


def each_line(text: str) -> str:
    """The same, in the lines that it has."""
    return "\n".join(map(one_line, text.splitlines()))


def shown(path: Path) -> str:
    """A path as the user would type it here; of what mirrors object storage, the URI."""
    if uri := uri_of(path):
        return uri
    if is_job() or not path.is_relative_to(Path.cwd()):  # a job's user is elsewhere
        return str(path)
    return str(path.relative_to(Path.cwd()))
