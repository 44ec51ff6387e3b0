from tuner import jobs
from tuner.commands.table import print_table


def status(address: str | None) -> None:
    """List the jobs of runs on a cluster, the oldest first."""
    found = jobs.list_jobs(jobs.connect(address))
    if not found:
        print("no run was submitted here")
        return
    print_table(["run", "job", "state", "since", "message"], [_row(job) for job in found])


def _row(job: jobs.Job) -> tuple[str, ...]:
    since = f"{job.since:%Y-%m-%d %H:%M:%S}"
    message = job.message if job.submitted else "not submitted"
    return job.run or "-", job.id, job.state, since, message
