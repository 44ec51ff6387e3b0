"""What a run's files must hold, for a folder may be a stranger's, or was damaged."""

import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import UserError

_MOST = 2**53
"""Of what is counted; a float still has it exactly."""
_LARGEST = 10**300
"""Of whole numbers that are no counts; a float can be made of it."""
_YEAR_5138 = 1e11
"""Seconds since 1970, which are still a date everywhere."""
_HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: half of a character, which cannot be written."""


@dataclass(frozen=True)
class Kind:
    """What a value may be."""

    name: str
    """As in: it must be ..."""
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether it is a number, finite or not, that is not too large for a float."""
    return isinstance(value, float) or (isinstance(value, int) and -_LARGEST <= value <= _LARGEST)


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return type(value) is int and 0 <= value <= _MOST


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_number(value)


def _is_config(value: Any) -> bool:
    return type(value) is dict and all(map(_is_scalar, value.values()))


def _is_error(value: Any) -> bool:
    return (
        _is_config(value)
        and isinstance(value.get("type"), str)
        and isinstance(value.get("message"), str)
        and isinstance(value.get("traceback", ""), str)
    )


def list_of(kind: Kind) -> Kind:
    """A list of such values."""
    holds = kind.holds
    return Kind(
        f"a list, each {kind.name}", lambda value: type(value) is list and all(map(holds, value))
    )


def one_of(*values: str | None) -> Kind:
    """One of these."""
    named = " or ".join("null" if value is None else value for value in values)
    return Kind(named, lambda value: (value is None or type(value) is str) and value in values)


def or_null(kind: Kind) -> Kind:
    """Such a value, or none."""
    return Kind(f"{kind.name}, or null", lambda value: value is None or kind.holds(value))


TEXT = Kind("text", lambda value: isinstance(value, str))
COUNT = Kind("a whole number from 0 on", is_count)
NUMBER = Kind("a number", is_number)
PATH = Kind("a path", lambda value: isinstance(value, str) and "\0" not in value)
TIME = Kind("seconds since 1970", lambda v: is_number(v) and 0 <= v <= _YEAR_5138)
CONFIG = Kind("a mapping of names to numbers, texts and truth values", _is_config)
METRICS = Kind(
    "a mapping of names to numbers", lambda v: type(v) is dict and all(map(is_number, v.values()))
)
ERROR = Kind("a mapping with the texts type and message", _is_error)
DATA = one_of("train", "train+val")

_OF_BEST = {
    "trial": COUNT,
    "epoch": COUNT,
    "final": Kind("true", lambda value: value is True),
    "epochs": COUNT,
    "data": DATA,
    "metrics": METRICS,
    "metrics_on_training_data": METRICS,
    "search_best": METRICS,
    "test": METRICS,
}
"""Of the ``metrics.json`` in ``best/``: key -> what it must be."""


def mapping_of(fields: Mapping[str, Kind]) -> Kind:
    """A mapping that has these keys and no others."""
    named = ", ".join(fields)
    return Kind(
        f"a mapping of {named}",
        lambda value: (
            type(value) is dict
            and value.keys() == fields.keys()
            and all(kind.holds(value[name]) for name, kind in fields.items())
        ),
    )


def check(values: Mapping[str, Any], fields: Mapping[str, Kind]) -> None:
    """See that those of ``fields`` that are there hold what they must.

    Raises:
        ValueError: one does not; the message names it.

    """
    for name, value in values.items():
        kind = fields.get(name)
        if kind is not None and not kind.holds(value):
            raise ValueError(f"{name} is {_short(value)}, and it must be {kind.name}")


def require(values: Mapping[str, Any], names: AbstractSet[str]) -> None:
    """See that all of ``names`` are there.

    Raises:
        ValueError: one is not.

    """
    if not values.keys() >= names:
        raise ValueError(f"{' and '.join(sorted(names - values.keys()))} must be there")


def parse_object(text: bytes) -> dict[str, Any]:
    """The mapping that a line or a file in JSON holds.

    Half of a character, which a message may have from the name of a file, becomes a question mark.

    Raises:
        ValueError: it holds none.

    """
    try:
        value = json.loads(text.decode())
        if rb"\u" in text:
            value = json.loads(_HALF.sub("?", json.dumps(value, ensure_ascii=False)))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}, not a mapping")  # noqa: TRY004
    return value


def read_metrics(best: Path) -> dict[str, Any]:
    """What ``metrics.json`` tells of the model in a ``best/`` folder.

    Raises:
        UserError: it cannot be read, or does not hold what it must.

    """
    return read_object(best / "metrics.json", _OF_BEST, {"trial", "epoch"})


def read_object(
    path: Path, fields: Mapping[str, Kind], required: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """The mapping that a JSON file in a run's folder holds.

    Args:
        path: the file.
        fields: key -> what it must be; of other keys, anything.
        required: keys that must be there.

    Raises:
        UserError: it cannot be read, or does not hold what it must.

    """
    try:
        values = parse_object(path.read_bytes())
        require(values, required)
        check(values, fields)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; it was damaged from outside: remove it, a run can do without"
        ) from error
    return values


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
