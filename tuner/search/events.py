"""The events of a search: what each must tell, and what must have been before it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.fields import (
    CONFIG,
    COUNT,
    DATA,
    ERROR,
    METRICS,
    NUMBER,
    PATH,
    TEXT,
    TIME,
    Kind,
    check,
    is_count,
    is_number,
    list_of,
    mapping_of,
    one_of,
    or_null,
    require,
)

if TYPE_CHECKING:
    from tuner.search.search import Search

_MOST_SLOTS = 100_000
SLOT = Kind(f"a whole number up to {_MOST_SLOTS}", lambda v: is_count(v) and v <= _MOST_SLOTS)
BRACKET = Kind("a whole number from -1 on", lambda v: v == -1 or is_count(v))
LEARNED = Kind(
    "[configuration, epochs, loss]",
    lambda v: (
        type(v) is list
        and len(v) == 3
        and CONFIG.holds(v[0])
        and is_count(v[1])
        and (v[2] is None or is_number(v[2]))
    ),
)

FIELDS = {
    "time": TIME,
    "trial": COUNT,
    # of a session
    "num_trials": COUNT,
    "slots": SLOT,
    "fit": mapping_of({"trial": COUNT, "epochs": COUNT, "data": DATA}),
    # of a warm start
    "runs": list_of(TEXT),
    "results": list_of(LEARNED),
    "first": list_of(CONFIG),
    "dropped": list_of(TEXT),
    "outside": COUNT,
    # of a trial on its way
    "config": CONFIG,
    "origin": TEXT,
    "bracket": BRACKET,
    "target": COUNT,
    "slot": SLOT,
    "epoch": COUNT,
    "metrics": METRICS,
    "verdict": or_null(one_of("advance", "pause", "complete", "stop")),
    "error": ERROR,
    "reason": TEXT,
    # of its checkpoints
    "path": PATH,
    "bytes": COUNT,
    "epochs": list_of(COUNT),
    "limit": NUMBER,
}
"""Field -> what it must be, in whatever event it is."""

_ALWAYS = {"event", "time"}
_OF_TRIAL = _ALWAYS | {"trial"}
EVENTS: dict[str, set[str]] = {
    "session": _ALWAYS,
    "warm_start": _ALWAYS | {"runs", "results", "first", "dropped", "outside"},
    "start": _OF_TRIAL | {"config", "origin", "bracket", "target", "slot"},
    "restart": _OF_TRIAL | {"slot"},
    "resume": _OF_TRIAL | {"target", "slot"},
    "result": _OF_TRIAL | {"epoch", "metrics", "verdict"},
    "checkpoint": _OF_TRIAL | {"epoch", "path"},
    "drop": _OF_TRIAL | {"epochs"},
    "damaged": _OF_TRIAL | {"epoch", "error"},
    "fail": _OF_TRIAL | {"error"},
    "interrupt": _OF_TRIAL | {"error"},
    "replace": _OF_TRIAL | {"reason"},
    "withdraw": _OF_TRIAL | {"reason"},
    "complete": _OF_TRIAL,
    "stop": _OF_TRIAL,
    "close": _OF_TRIAL,
    "halt": _ALWAYS | {"reason"},
    "overfull": _ALWAYS,
}
"""Event -> the fields it must have. Others it may have: older versions wrote fewer."""


def check_event(event: Mapping[str, Any]) -> None:
    """See that an event is one, with the fields that its kind has.

    Raises:
        ValueError: it is none; the message says what is wrong.

    """
    kind = event.get("event")
    required = EVENTS.get(kind) if isinstance(kind, str) else None
    if required is None:
        raise ValueError(f"event is {ascii(kind)[:60]}, and it must be one of {', '.join(EVENTS)}")
    require(event, required)
    check(event, FIELDS)


def check_order(event: Mapping[str, Any], search: "Search") -> None:
    """See that an event can follow those that ``search`` has had.

    What applying it finds out by itself is not looked for here.

    Raises:
        ValueError: it cannot; the message says why.

    """
    kind, number = event["event"], event.get("trial")
    begun = len(search.trials)
    if kind == "start" and number != begun:
        raise ValueError(f"trial is {number}, and the next one is {begun}")
    if kind == "checkpoint" and event["epoch"] not in search.trials[event["trial"]].results:
        raise ValueError(f"trial {number} has no result of epoch {event['epoch']}")
