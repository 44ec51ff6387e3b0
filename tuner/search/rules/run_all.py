"""Every trial runs to max_epochs."""

from tuner.search.trial import Trial


class RunAll:
    """The rule that never decides: grid and random search."""

    def __init__(self, max_epochs: int) -> None:
        self.levels = [max_epochs]

    def opening(self) -> tuple[int, int]:
        """One bracket, straight to max_epochs."""
        return 0, self.levels[0]

    def started(self, trial: Trial) -> None:
        """Nothing to note."""

    def arrived(self, trial: Trial) -> None:
        """Nothing to note."""

    def promotion(self) -> None:
        """Nobody is ever paused."""

    def promoted(self, trial: Trial) -> None:
        """Nothing to note."""

    def lost(self, trial: Trial) -> None:
        """Nobody is ever paused."""

    def dropped(self) -> list[Trial]:
        """Nobody is ever dropped."""
        return []
