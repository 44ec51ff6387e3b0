from collections.abc import Iterable
from difflib import get_close_matches


class SpaceError(ValueError):
    """A search space that cannot be used.

    The message is one line: the key, the value got, what must hold, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def near(name: object, known: Iterable[str]) -> str:
    """Say which of the ``known`` names was probably meant, or what there is to choose from."""
    names = sorted(known)
    close = get_close_matches(str(name), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}"
