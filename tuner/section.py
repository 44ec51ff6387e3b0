"""What every part of an experiment file has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """Keys that belong together; no others, and none of them a switch."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_switch(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would read it as a 1 or 0
            raise ValueError(  # noqa: TRY004
                "it takes no true or false; give a number, null, or, if it is text, quote it"
            )
        return value
