from pathlib import Path


def tensorboard(runs: list[Path], port: int) -> None:
    """Open TensorBoard on runs, until Ctrl-C."""
    raise NotImplementedError
