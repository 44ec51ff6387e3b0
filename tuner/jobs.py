"""Runs as jobs of a Ray cluster: Ray's job API behind plain functions."""

import asyncio
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tuner.cluster import environment
from tuner.errors import UserError
from tuner.text import plain

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where the job server's address is, where it is not given: the variables of ``ray job``."""
ANSWER_SECONDS = 10
"""The most that the job server takes for its first answer."""
STOP_SECONDS = 60
"""What a stopped run has to save its state before it is killed; Ray's own default is 3."""
MAX_UPLOAD_BYTES = 100 * 2**20
"""Of a working directory, as Ray's dashboard takes it (its ``DASHBOARD_CLIENT_MAX_SIZE``)."""
STAYS = (".?*", "venv", "__pycache__", "/runs", "/wandb", "events.out.tfevents.*")
"""What no job needs of a working directory, as .gitignore would have it: hidden files and folders
(.git, .venv, caches), results and event files."""


@dataclass(frozen=True)
class Job:
    """A run's job, as the cluster knows it."""

    id: str
    run: str
    """The run's name; empty where the job was submitted by other means and does not tell."""
    state: str
    """``pending``, ``running``, ``stopped``, ``succeeded`` or ``failed``."""
    since: datetime
    """When it ended; when it was started, where it has not."""
    message: str
    """Why it failed; empty otherwise."""
    submitted: bool
    """False: a driver somewhere that has joined the cluster; Ray has no log of it."""
    driver_exit_code: int | None

    @property
    def ended(self) -> bool:
        """It will not change any more."""
        return self.state not in ("pending", "running")

    @property
    def exit_code(self) -> int:
        """The driver's own, where it is known: Ray tells none of a job that was stopped."""
        code = self.driver_exit_code
        if code is None:
            return {"succeeded": 0, "stopped": 130}.get(self.state, 1)
        return code if code >= 0 else 128 - code  # ended by a signal


# -- in a job -------------------------------------------------------------------------------------


def is_passing(path: Path) -> bool:
    """Whether it is part of a job's working directory: a copy, on each node, that Ray removes."""
    return "working_dir_files" in path.parts


# -- the connection -------------------------------------------------------------------------------


def connect(address: str | None) -> Any:
    """A client of the job server, with the token where the server asks for one.

    Ray's own client sends a token only where ``RAY_AUTH_MODE`` is ``token``, and has its address
    overruled by the environment.

    Args:
        address: of Ray's dashboard, as ``http://HOST:8265``; None takes it from ``ADDRESSES``.

    Raises:
        UserError: there is no address, nothing answers there, or it wants another token.

    """
    url, source = _job_server(address)
    headers = {"Authorization": f"Bearer {_token(url)}"} if _wants_token(url, source) else {}
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    with environment({ADDRESSES[0]: url}), _mended(url):
        return JobSubmissionClient(url, headers=headers)


def _job_server(address: str | None) -> tuple[str, str]:
    """The URL of the job server, and what has named it."""
    given = [("--address", address), *((name, os.environ.get(name)) for name in ADDRESSES)]
    source, found = next(((source, value) for source, value in given if value), ("", ""))
    if not found:
        raise UserError(
            "no cluster is named: give the address of its dashboard, --address http://HOST:8265, "
            f"or set {ADDRESSES[0]}"
        )
    return (found if "://" in found else f"http://{found}").rstrip("/"), source


def _wants_token(url: str, source: str) -> bool:
    """Ask the server, which tells everybody."""
    import requests

    try:
        answer = requests.get(f"{url}/api/authentication_mode", timeout=ANSWER_SECONDS)
        if answer.status_code == HTTPStatus.NOT_FOUND:  # an older Ray
            return False
        answer.raise_for_status()
        return bool(answer.json()["authentication_mode"] == "token")
    except (requests.RequestException, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{source} is {url}: no dashboard of Ray answers there ({type(error).__name__}); give "
            "the address that ray start --head prints for the dashboard, such as "
            "http://HOST:8265, not that of the cluster (HOST:6379)"
        ) from error


def _token(url: str) -> str:
    """The token, from the places that Ray documents, in their order."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    token = os.environ.get("RAY_AUTH_TOKEN")
    try:
        token = token or Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token.strip():
        raise UserError(
            f"{url} wants a token, and there is none in RAY_AUTH_TOKEN or {path}: put the "
            "cluster's own there (ray get-auth-token prints it on the head node)"
        )
    return token.strip()


@contextmanager
def _mended(url: str) -> Iterator[None]:
    """Turn what Ray's client raises into what the user can do."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except BrokenPipeError:  # of our own output
        raise
    except AuthenticationError as error:
        raise UserError(
            f"{url} does not take the token: it must be the cluster's own (ray get-auth-token "
            "prints it on the head node), in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token"
        ) from error
    except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
        raise UserError(
            f"{url} answers no more ({type(error).__name__}); a job that was submitted goes on"
        ) from error
    except RuntimeError as error:
        raise UserError(f"{url}: {plain(str(error))}") from error


# -- what is done with jobs -----------------------------------------------------------------------


def submit_job(
    client: Any,
    entrypoint: str,
    *,
    run: str,
    metadata: Mapping[str, str],
    folder: Path | None = None,
    stays: Sequence[str] = (),
) -> str:
    """Have the cluster run a command.

    Args:
        client: from :func:`connect`.
        entrypoint: the command.
        run: the run's name, with which the job's id begins.
        metadata: what the dashboard says of the job.
        folder: the working directory, of which each node gets a copy; None: nothing travels.
        stays: what of it does not travel, as .gitignore would have it.

    Returns:
        The job's id.

    Raises:
        UserError: the folder is too large, or the server refuses.

    """
    runtime_env: dict[str, Any] = {
        # read by Ray where it stops the job: Ctrl-C's signal, and time to save the state
        "env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    }
    if folder:
        check_size(folder, stays)
        runtime_env |= {"working_dir": str(folder), "excludes": list(stays)}
    with _mended(client.get_address()):
        job: str = client.submit_job(
            entrypoint=entrypoint,
            submission_id=f"{run}-{uuid.uuid4().hex[:8]}",
            runtime_env=runtime_env,
            metadata=dict(metadata),
        )
    return job


def check_size(folder: Path, stays: Sequence[str]) -> None:
    """Refuse a working directory that the cluster would not take.

    Raises:
        UserError: names the largest files and folders.

    """
    sizes: Counter[str] = Counter()
    for path in travelling(folder, stays):
        sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    if (total := sizes.total()) > MAX_UPLOAD_BYTES:
        largest = ", ".join(f"{name} ({_megabytes(size)})" for name, size in sizes.most_common(3))
        raise UserError(
            f"{folder} is the job's working directory and holds {_megabytes(total)}, but Ray takes "
            f"{_megabytes(MAX_UPLOAD_BYTES)}; the largest in it: {largest}. Name in .rayignore, as "
            "in .gitignore, what the job does not need"
        )


def travelling(folder: Path, stays: Sequence[str]) -> list[Path]:
    """The files of a working directory that Ray uploads; it heeds .gitignore and .rayignore."""
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: list[Path] = []
    _dir_travel(folder, [_get_excludes(folder, list(stays))], found.append, include_gitignore=True)
    return [path for path in found if path.is_file()]


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"


def list_jobs(client: Any) -> list[Job]:
    """The jobs of runs, the oldest first.

    Raises:
        UserError: the server does not answer.

    """
    with _mended(client.get_address()):
        details = client.list_jobs()
    found = [job for job in details if "run" in (job.metadata or {}) or _runs_tuner(job.entrypoint)]
    return [_job(job) for job in sorted(found, key=lambda job: job.start_time or 0)]


def _runs_tuner(entrypoint: str) -> bool:
    """Whether it was submitted by ``ray job submit -- python -m tuner run FILE``, say."""
    return " -m tuner " in entrypoint or entrypoint.startswith("tuner ")


def find_job(client: Any, name: str) -> Job:
    """The job with this id, or else the run's last one.

    Raises:
        UserError: there is none, or it was not submitted.

    """
    jobs = list_jobs(client)
    found = [job for job in jobs if job.id == name] or [job for job in jobs if job.run == name]
    if not found:
        raise UserError(
            f"no job at {client.get_address()} has the id or the run {name!r}: python -m tuner "
            "status lists them"
        )
    if not found[-1].submitted:
        raise UserError(
            f"run {name!r} was not submitted: it has its terminal, which stops it by Ctrl-C, and "
            "its log is run.log in its folder"
        )
    return found[-1]


def read_job(client: Any, job: str) -> Job:
    """The job with this id, as it now is.

    Raises:
        UserError: there is none, or the server does not answer.

    """
    with _mended(client.get_address()):
        return _job(client.get_job_info(job))


def read_log(client: Any, job: str) -> str:
    """What the job with this id has printed so far.

    Raises:
        UserError: the server does not answer.

    """
    with _mended(client.get_address()):
        log: str = client.get_job_logs(job)
    return log


def follow_log(client: Any, job: str, write: Callable[[str], None]) -> Job:
    """Hand what a job prints to ``write``, from its beginning, until it has ended.

    Raises:
        UserError: the connection was lost.
        KeyboardInterrupt: Ctrl-C; the job goes on.

    """

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            write(text)

    with _mended(client.get_address()):
        asyncio.run(follow())
    return wait_for(client, job)


def stop_job(client: Any, job: str) -> Job:
    """Stop a job, and wait until it has saved its state and is gone.

    Raises:
        UserError: the server does not answer.

    """
    with _mended(client.get_address()):
        client.stop_job(job)
    return wait_for(client, job)


def wait_for(client: Any, job: str, seconds_between: float = 0.5) -> Job:
    """Wait until a job has ended."""
    while not (found := read_job(client, job)).ended:
        time.sleep(seconds_between)
    return found


def _job(details: Any) -> Job:
    milliseconds = details.end_time or details.start_time or 0
    return Job(
        id=details.submission_id or details.job_id,
        run=(details.metadata or {}).get("run", ""),
        state=details.status.value.lower(),
        since=datetime.fromtimestamp(milliseconds / 1000).astimezone(),
        message=_reason(details),
        submitted=details.submission_id is not None,
        driver_exit_code=details.driver_exit_code,
    )


def _reason(details: Any) -> str:
    """Why a job failed: the last that its driver printed, or what kept that from starting."""
    lines = (details.message or "").strip().splitlines()
    if details.status.value != "FAILED" or not lines:
        return ""
    return plain(lines[0] if details.driver_exit_code is None else lines[-1])
