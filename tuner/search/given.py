"""The user's own guesses, as configurations of the space."""

from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.search.settings import SearchSettings

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace


def given_configurations(
    settings: SearchSettings, space: "ConfigurationSpace"
) -> list[dict[str, Any]]:
    """Each guess of ``search.initial``, completed from the default; none is there twice.

    Raises:
        UserError: one is no configuration of the space.

    """
    from search_spaces import SpaceError, complete, default_configuration

    found = [default_configuration(space)]
    for number, guess in enumerate(settings.initial):
        try:
            config = complete(space, guess)
        except SpaceError as error:
            raise UserError(f"search.initial[{number}]: {error}") from error
        if config not in found:
            found.append(config)
    return found[1:]
