from pathlib import Path

from tuner.report.comparison import write_comparison
from tuner.report.record import read_record
from tuner.report.run_page import REPORT, write_report
from tuner.storage import bring, local_folder
from tuner.text import shown


def report(runs: list[str], output: Path | None) -> None:
    """Write one page of a run, or of several to compare, and print its path.

    Raises:
        UserError: one is no run folder, their metrics differ, or the file cannot be written.

    """
    records = [read_record(run) for run in {local_folder(run): run for run in runs}.values()]
    if len(records) == 1:
        path = output or records[0].history.folder / REPORT
        write_report(records[0], path)
        bring(path)
    else:
        path = output or Path(REPORT)
        write_comparison(records, path)
    print(shown(path))
