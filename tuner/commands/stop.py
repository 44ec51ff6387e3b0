from tuner import jobs


def stop(run: str, address: str | None) -> None:
    """Stop a run's job, wait until it is gone, and print its last words: what was saved."""
    client = jobs.connect(address)
    job = jobs.find_job(client, run)
    if job.ended:
        print(f"{job.id} has {job.state} already")
        return
    job = jobs.stop_job(client, job.id)
    print(f"{job.id}: {job.state}")
    lines = jobs.read_log(client, job.id).strip().splitlines()
    if lines:
        print(lines[-1])
