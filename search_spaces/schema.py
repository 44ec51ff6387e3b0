"""What a search space may say, and the one line that a user reads where it says something else.

A space with each kind of hyperparameter, condition and forbidden clause::

    hyperparameters:
      learning_rate: {type: float, lower: 1.0e-4, upper: 0.1, log: true, default: 1.0e-2, grid: 3}
      layers: {type: integer, lower: 1, upper: 4}
      optimizer: {type: categorical, choices: [sgd, adamw], weights: [0.3, 0.7], default: adamw}
      width: {type: ordinal, sequence: [32, 64, 96]}
      momentum: {type: float, lower: 0.5, upper: 0.99}
      dropout: {type: float, lower: 0.0, upper: 0.5}
      warmup_epochs: {type: constant, value: 1}
    conditions:  # equals, not_equals, in, less_than, greater_than; joined by all or any
      - {child: momentum, parent: optimizer, equals: sgd}
      - child: dropout
        any: [{parent: layers, greater_than: 2}, {parent: width, in: [64, 96]}]
    forbidden:  # a value, or equals, in, less_than, greater_than
      - {optimizer: adamw, learning_rate: {greater_than: 0.05}}
"""

import math
import re
import reprlib
from types import NoneType
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from search_spaces.errors import SpaceError, near

PLACES = 13
"""Decimals that ConfigSpace keeps of a float."""

_LARGEST = 1e30
"""What is larger leaves no room for the decimals."""

_EXACT = 2**53
"""Whole numbers up to here stay what they are where numpy makes floats of them."""

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def scalar(value: Any) -> Any:
    """``value`` as plain Python where it is a number, text or truth value of numpy's."""
    return value.item() if isinstance(value, np.generic) else value


def number(value: Any) -> Any:
    """``value`` as a number where it is one in text, as YAML 1.1 leaves ``1e-3``."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return scalar(value)


def _whole(value: Any) -> Any:
    value = number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bounded(value: float) -> float:
    if not abs(value) <= _LARGEST:
        raise ValueError(f"it must lie between -{_LARGEST} and {_LARGEST}")
    return value


def _value(value: Any) -> Any:
    value = scalar(value)
    if type(value) not in (str, int, float, bool, NoneType):
        raise ValueError(
            "it must be text, a number, true, false or null; give a list or a mapping a name, "
            "and look the name up in the task"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it must be finite; use text or null where no number fits")
    if isinstance(value, int) and abs(value) > _EXACT:
        raise ValueError(f"it must lie between -{_EXACT} and {_EXACT}; use text")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("it must not hold a null character, which numpy drops")
    return value


def _choice(value: Any) -> Any:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        raise ValueError("YAML reads it as text, not as a number; write it as in 1.0e-3")
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same choice; True is not 1 here."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _distinct(choices: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, choice in enumerate(choices):
        if choice in choices[:index]:
            first = choices[choices.index(choice)]
            raise ValueError(f"{first!r} and {choice!r} are equal; drop one of them")
    return choices


Real = Annotated[float, BeforeValidator(number), Field(strict=True), AfterValidator(_bounded)]
Whole = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=-_EXACT, le=_EXACT)]
Flag = Annotated[bool, Field(strict=True)]
Value = Annotated[Any, AfterValidator(_value)]
Choice = Annotated[Value, AfterValidator(_choice)]
Choices = Annotated[tuple[Choice, ...], Field(min_length=1), AfterValidator(_distinct)]
Name = Annotated[str, Field(strict=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in data if isinstance(data, dict) else ():
            if key not in known:
                context = {"key": key, "remedy": near(key, known)}
                raise PydanticCustomError("unknown_key", "{key} {remedy}", context)
        return data

    @property
    def given(self) -> dict[str, Any]:
        """What was written, by the keys of the YAML file."""
        fields = type(self).model_fields
        return {
            fields[name].alias or name: getattr(self, name)
            for name in fields
            if name in self.model_fields_set
        }


class _Range(_Strict):
    lower: Real
    """The lowest value; it is included."""
    upper: Real
    """The highest value; it is included."""
    log: Flag = False
    """Whether draws and grid points are even in log space."""
    default: Real | None = None
    """The value of the first trial; the middle of the range where it is left out."""
    grid: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    """How many points a grid takes, evenly; 1 takes the default alone. Left out: 3."""

    @field_validator("upper")
    @classmethod
    def _check_order(cls, upper: float, info: ValidationInfo) -> float:
        lower = info.data.get("lower", -math.inf)
        if round(upper, PLACES) <= round(lower, PLACES):
            raise ValueError(f"it must be above lower, {lower}; a single value is type: constant")
        return upper

    @field_validator("log")
    @classmethod
    def _check_log(cls, log: bool, info: ValidationInfo) -> bool:
        lower = info.data.get("lower", 1)
        if log and round(lower, PLACES) <= 0:
            raise ValueError(
                f"a log scale needs a lower above 0 ({PLACES} decimals are kept), not {lower}; "
                "raise lower or drop log"
            )
        return log

    @field_validator("default")
    @classmethod
    def _check_default(cls, default: float | None, info: ValidationInfo) -> float | None:
        lower, upper = info.data.get("lower", -math.inf), info.data.get("upper", math.inf)
        if default is not None and not lower <= default <= upper:
            raise ValueError(f"it must lie between lower, {lower}, and upper, {upper}")
        return default


class Float(_Range):
    """A real number in a range."""

    type: Literal["float"]


class Integer(_Range):
    """A whole number in a range."""

    type: Literal["integer"]
    lower: Whole
    upper: Whole
    default: Whole | None = None


class _Listed(_Strict):
    @field_validator("default", check_fields=False)
    @classmethod
    def _check_default(cls, default: Any, info: ValidationInfo) -> Any:
        choices = info.data.get("choices", info.data.get("sequence", (default,)))
        for choice in choices:
            if equal(choice, default):
                return choice
        raise ValueError(f"it must be one of {', '.join(map(repr, choices))}")


class Categorical(_Listed):
    """One of several values that have no order."""

    type: Literal["categorical"]
    choices: Choices
    weights: tuple[Annotated[Real, Field(ge=0)], ...] | None = None
    """How often each choice is drawn, relative to the others."""
    default: Value = None
    """The choice of the first trial; the first, or the one of the highest weight, if left out."""

    @field_validator("weights")
    @classmethod
    def _check_weights(
        cls, weights: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        choices = info.data.get("choices")
        if weights is None or choices is None:
            return weights
        if len(weights) != len(choices):
            raise ValueError(
                f"it must hold one weight a choice: {len(choices)}, not {len(weights)}"
            )
        if not any(weights):
            raise ValueError("one weight at least must be above 0")
        return weights


class Ordinal(_Listed):
    """One of several values in an order, lowest first."""

    type: Literal["ordinal"]
    sequence: Choices
    default: Value = None
    """The value of the first trial; the first of the sequence where it is left out."""


class Constant(_Strict):
    """A single value."""

    type: Literal["constant"]
    value: Choice


Hyperparameter = Annotated[
    Float | Integer | Categorical | Ordinal | Constant, Field(discriminator="type")
]


class Requirement(_Strict):
    """A test of one parent, or several tests joined by ``all`` or ``any``."""

    parent: Name | None = None
    equals: Value = None
    not_equals: Value = None
    in_: Annotated[tuple[Value, ...], Field(alias="in", min_length=1)] = ()
    less_than: Value = None
    greater_than: Value = None
    all: Annotated[tuple["Requirement", ...], Field(min_length=2)] = ()
    any: Annotated[tuple["Requirement", ...], Field(min_length=2)] = ()

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        keys = self.given.keys() - {"child"}
        if keys not in ({"all"}, {"any"}) and not (
            "parent" in keys and len(keys) == 2 and keys.isdisjoint({"all", "any"})
        ):
            raise ValueError(
                "it must hold a parent and one of equals, not_equals, in, less_than and "
                "greater_than, or else one list of such tests, all or any"
            )
        return self

    @property
    def test(self) -> tuple[str, Any]:
        """The one test: its key, and what it compares with or joins."""
        return next(item for item in self.given.items() if item[0] not in {"child", "parent"})


class Condition(Requirement):
    """When ``child`` is active; a hyperparameter without a condition always is."""

    child: Name


class Clause(_Strict):
    """The values of one hyperparameter that a forbidden clause means; a bare value: ``equals``."""

    equals: Value = None
    in_: Annotated[tuple[Value, ...], Field(alias="in", min_length=1)] = ()
    less_than: Value = None
    greater_than: Value = None

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_value(cls, data: Any) -> Any:
        if data == {}:
            raise ValueError("it must hold a value, or equals, in, less_than or greater_than")
        return data if isinstance(data, dict | Clause) else {"equals": data}


Forbidden = Annotated[dict[Name, Clause], Field(min_length=1)]
"""A clause a hyperparameter; a configuration that meets all of them is never drawn."""


class Space(_Strict):
    """A whole search space, as a YAML file holds it."""

    hyperparameters: Annotated[dict[Name, Hyperparameter], Field(min_length=1)]
    """Name -> its kind and its values."""
    conditions: tuple[Condition, ...] = ()
    """One at most for each hyperparameter."""
    forbidden: tuple[Forbidden, ...] = ()
    """Combinations that are never drawn; none may forbid the default configuration."""


def parse(document: Any) -> Space:
    """Validate what a YAML file holds.

    Raises:
        SpaceError: it says something that no space can; the first fault is named.

    """
    try:
        return Space.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise SpaceError(_sentence(fault)) from None


def dotted(*parts: object) -> str:
    """A key as a user finds it in the file: ``conditions[0].all[1].parent``."""
    joined = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return joined.removeprefix(".")


def _sentence(fault: ErrorDetails) -> str:
    loc, kind, context = list(fault["loc"]), fault["type"], fault.get("ctx", {})
    if loc and loc[-1] == "[key]":
        name = repr(fault["input"])
        return f"{dotted(*loc[:-2])} has the key {name}: it must be text, not empty; quote it"
    if loc[:1] == ["hyperparameters"] and len(loc) > 2:
        del loc[2]  # the type: pydantic's, not the file's
    key = dotted(*loc) or "the search space"
    if kind == "unknown_key":
        return f"{dotted(*loc, str(context['key']))} is unknown: {context['remedy']}"
    if kind == "missing":
        return f"{key} is missing: it has no default; add it"
    if kind == "union_tag_not_found":
        return f"{key}.type is missing: {near('', _TYPES)}"
    if kind == "union_tag_invalid":
        tag = context["tag"]
        return f"{key}.type is {reprlib.repr(tag)}: no such type; {near(tag, _TYPES)}"
    return f"{key} is {reprlib.repr(fault['input'])}: {_rule(kind, context, fault['msg'])}"


_TYPES = ("categorical", "constant", "float", "integer", "ordinal")
_MAPPING = "it must be a mapping; write it as in {key: value}"
_RULES = {
    "bool_type": "it must be true or false",
    "dict_type": _MAPPING,
    "float_type": "it must be a number; write it as in 1.0e-3",
    "int_type": "it must be a whole number; write it as in 3",
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "tuple_type": "it must be a list; write it as in [a, b]",
}


def _rule(kind: str, context: dict[str, Any], message: str) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind in ("too_short", "string_too_short"):
        return f"it must hold {context['min_length']} or more; add to it"
    return _RULES.get(kind, message.replace("Input should", "it must"))
