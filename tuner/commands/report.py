from pathlib import Path


def report(runs: list[Path], output: Path | None) -> None:
    """Write one page of a run, or of several to compare."""
    raise NotImplementedError
