from tuner import jobs
from tuner.commands import submit


def logs(run: str, address: str | None, *, follow: bool) -> None:
    """Print what a run's job has printed; ``follow``: until it has ended, and exit as it does."""
    client = jobs.connect(address)
    job = jobs.find_job(client, run)
    if follow:
        submit.follow(client, job.id)
    else:
        print(jobs.read_log(client, job.id), end="")
