from pathlib import Path

from tuner.report.comparison import write_comparison
from tuner.report.record import read_record
from tuner.report.run_page import REPORT, write_report


def report(runs: list[Path], output: Path | None) -> None:
    """Write one page of a run, or of several to compare, and print its path.

    Raises:
        UserError: one is no run folder, their metrics differ, or the file cannot be written.

    """
    records = [read_record(run) for run in dict.fromkeys(run.resolve() for run in runs)]
    if len(records) == 1:
        path = output or runs[0] / REPORT
        write_report(records[0], path)
    else:
        path = output or Path(REPORT)
        write_comparison(records, path)
    print(path)
