from pathlib import Path


def ui(runs: list[Path], port: int) -> None:
    """Open optuna-dashboard on runs, until Ctrl-C."""
    raise NotImplementedError
