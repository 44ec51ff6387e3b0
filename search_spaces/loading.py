"""Where a search space comes from: a name, a YAML file, a dict or a function."""

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from ConfigSpace import ConfigurationSpace

from search_spaces.builtin import SPACES, builtin_file
from search_spaces.convert import build_space, dump_space
from search_spaces.errors import SpaceError, near
from search_spaces.reading import check_size, read_text
from search_spaces.schema import parse

_FUNCTION = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")


def load_space(
    source: str | Path | dict[str, Any], *, folder: Path | None = None, seed: int = 0
) -> ConfigurationSpace:
    """Build the space that ``source`` names or holds.

    Args:
        source: a built-in name, the path of a YAML file, the space itself as a dict, or a
            ``package.module:function`` that returns a ``ConfigurationSpace``.
        folder: where a relative path starts; the current folder where it is left out.
        seed: seeds the space's own generator, which :func:`search_spaces.sample` does not use.

    Raises:
        SpaceError: there is no such source, or what it holds is no space.

    """
    if not 0 <= seed < 2**32:
        raise SpaceError(f"seed is {seed}: it must lie between 0 and 2**32 - 1")
    if isinstance(source, dict):
        return build_space(parse(source), seed)
    if not isinstance(source, str | Path):
        raise SpaceError(
            f"the search space is {source!r}: it must be a built-in name, a path, a mapping or "
            f"package.module:function; the built-in names are {', '.join(SPACES)}"
        )
    try:
        if match := _FUNCTION.fullmatch(str(source)):
            document = dump_space(_call(match["module"], match["function"]))
        else:
            document = _read(folder or Path(), str(source))
        return build_space(parse(document), seed)
    except SpaceError as error:
        raise SpaceError(f"{source}: {error}") from error.__cause__


def _read(folder: Path, source: str) -> Any:
    """Parse a built-in YAML file, or the one that lies at ``source`` seen from ``folder``."""
    own = folder / os.path.expanduser(source)  # noqa: PTH111 - Path's raises for an unknown user
    path = builtin_file(source) if source in SPACES else own
    try:
        document = yaml.load(read_text(path), _Loader)  # noqa: S506 - a SafeLoader
        check_size(document)
    except FileNotFoundError:
        raise SpaceError(
            f"no built-in search space has this name, and {path} does not exist; "
            f"{near(source, SPACES)}"
        ) from None
    except OSError as error:
        raise SpaceError(f"{path} cannot be read, {error.strerror}; name a YAML file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpaceError(f"line {line} is not valid YAML, {error.problem}; mend it") from None
    except Exception as error:  # noqa: BLE001 - yaml lets through what its constructors raise
        raise SpaceError(f"the file is not valid YAML, {error}; mend it") from None
    return document


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, where YAML libraries keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _call(module: str, function: str) -> ConfigurationSpace:
    """Import and call a user's function."""
    try:
        found = import_module(module)
        make = getattr(found, function, None)
        space = make() if callable(make) else None
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise SpaceError(f"importing or calling it raised {reason}; mend it") from error
    if not callable(make):
        functions = [name for name, value in vars(found).items() if callable(value)]
        raise SpaceError(f"{module} has no function {function}; {near(function, functions)}")
    if not isinstance(space, ConfigurationSpace):
        raise SpaceError(
            f"it returned a {type(space).__name__}: it must return a ConfigSpace.ConfigurationSpace"
        )
    return space
