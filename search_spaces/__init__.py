"""Search spaces: YAML files, one to one onto ConfigSpace, and plain Python values drawn from them.

``load_space`` turns a name, a file, a dict or a ``package.module:function`` into a
``ConfigurationSpace``; ``sample``, ``grid`` and ``default_configuration`` give dicts of ``int``,
``float``, ``str``, ``bool`` and ``None``. ConfigSpace is imported when the first of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from search_spaces.builtin import SPACES
from search_spaces.errors import SpaceError

if TYPE_CHECKING:  # the names below load ConfigSpace, which takes most of a second
    from search_spaces.convert import dump_space
    from search_spaces.loading import load_space
    from search_spaces.sampling import (
        complete,
        default_configuration,
        grid,
        grid_size,
        plain,
        sample,
        to_configuration,
    )

__all__ = [
    "SPACES",
    "SpaceError",
    "complete",
    "default_configuration",
    "dump_space",
    "grid",
    "grid_size",
    "load_space",
    "plain",
    "sample",
    "to_configuration",
]

_MODULES = {"dump_space": "convert", "load_space": "loading"}
"""Where a name lives that is not in ``sampling``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'sampling')}"), name)
