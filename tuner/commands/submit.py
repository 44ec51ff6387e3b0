import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables import TRAINABLES
from tuner import jobs, trainable
from tuner.commands.arguments import read_experiment, read_overrides
from tuner.earlier import read_earlier
from tuner.errors import DetachedError, UserError
from tuner.experiment import Experiment, builtin_experiments
from tuner.history import open_run
from tuner.storage import fetched, is_remote, local_folder, refuse_secrets


def submit(
    file: str, data: str | None, overrides: Sequence[str], address: str | None, *, wait: bool
) -> None:
    """Run an experiment, or go on with a run, as a job of a cluster; its exit code is the job's.

    Raises:
        UserError: the experiment cannot run, or the cluster does not take it.
        DetachedError: Ctrl-C; the job goes on.

    """
    order = _resumption(file, data, overrides) if _is_run(file) else _start(file, data, overrides)
    client = jobs.connect(address)
    job = jobs.submit_job(
        client,
        shlex.join(["python", "-m", "tuner", *order.arguments]),
        run=order.run,
        metadata=order.metadata,
        folder=order.folder,
        stays=order.stays,
    )
    print(f"submitted {job} to {client.get_address()}", flush=True)
    if not wait:
        print(how_to_go_on(job, client.get_address()))
        return
    follow(client, job)


def follow(client: Any, job: str) -> None:
    """Print what a job prints until it has ended, and end with its exit code.

    Raises:
        DetachedError: Ctrl-C; the job goes on.
        UserError: the connection is lost, or the job never came to run the command.

    """
    try:
        ended = jobs.follow_log(client, job, _write)
    except KeyboardInterrupt:
        raise DetachedError(
            f"detached; {job} goes on. {how_to_go_on(job, client.get_address())}"
        ) from None
    if ended.state == "failed" and ended.driver_exit_code is None:
        raise UserError(f"job {job} failed: {ended.message}")
    if ended.exit_code:
        sys.exit(ended.exit_code)


def how_to_go_on(job: str, url: str) -> str:
    """How to see more of a job, and how to stop it."""
    commands = [
        shlex.join(["python", "-m", "tuner", *command, "--address", url])
        for command in (["logs", job, "--follow"], ["stop", job])
    ]
    return "Follow it with: {}\nStop it with: {}".format(*commands)


def _write(text: str) -> None:
    print(text, end="", flush=True)


@dataclass(frozen=True)
class _Order:
    """What a job is to do, and with what."""

    run: str
    arguments: list[str]
    """Of ``python -m tuner``, in the job."""
    metadata: dict[str, str]
    folder: Path | None = None
    """Where the experiment file lies, which travels; None: it is a built-in one, or a run."""
    stays: Sequence[str] = ()
    """What does not travel of it."""


def _is_run(file: str) -> bool:
    """Whether it is a run folder, which may be where the cluster alone sees it."""
    path = Path(file).expanduser()
    if file in builtin_experiments():
        return False
    if "://" in file or (file and path.is_dir()):
        return True
    return path.is_absolute() and path.suffix not in (".yaml", ".yml")


def _resumption(run: str, data: str | None, overrides: Sequence[str]) -> _Order:
    """Go on with a run, which needs its folder, and what the user's Task imports beside itself."""
    if data is not None:
        raise UserError(f"--data is {data!r}, but {run} is a run, which has its data: leave it out")
    refuse_secrets(run)
    values, folder = read_overrides(overrides), None
    if "://" not in run:
        run = str(Path(run).expanduser().resolve())
    metadata = {"run": run.partition("?")[0].rstrip("/").rpartition("/")[2]}
    if _is_seen(run):
        experiment = open_run(run, values)
        metadata = experiment.job_metadata
        folder = _project(experiment.trainable)
    arguments = ["resume", run, *_set(values)]
    return _Order(metadata["run"], arguments, metadata, folder, jobs.STAYS if folder else ())


def _is_seen(run: str) -> bool:
    """Whether this machine can read the run, which it need not: the job does."""
    if not is_remote(run):
        return local_folder(run).is_dir()
    try:
        fetched(run)
    except UserError as error:
        print(f"note: the job itself checks the run, for it cannot be read here: {error}")
        return False
    return True


def _project(trainable: str) -> Path | None:
    """The current folder, where it holds the user's Task; None: it does not."""
    if trainable in TRAINABLES:
        return None
    module, folder = trainable.partition(":")[0].partition(".")[0], Path.cwd()
    return folder if (folder / f"{module}.py").exists() or (folder / module).is_dir() else None


def _start(file: str, data: str | None, overrides: Sequence[str]) -> _Order:
    """Run an experiment from the beginning; its data are read where they are."""
    experiment, folder = read_experiment(file, data, overrides)
    _check_storage(experiment.storage)
    settled = _settled(experiment, folder)
    values = {**read_overrides(overrides), **_moved(experiment, settled)}
    arguments = ["run"]
    if file:
        arguments += [Path(file).resolve().name if folder else file]
    if data is not None:
        arguments += ["--data", values.get("settings.data", experiment.settings["data"])]
    arguments += _set(values)
    stays = [*jobs.STAYS, *_places_below(folder, settled)] if folder else []
    return _Order(experiment.name, arguments, experiment.job_metadata, folder, stays)


def _check_storage(storage: str) -> None:
    """Refuse a storage that would be thrown away with the job's copy of the working directory."""
    if "://" not in storage and not Path(storage).expanduser().is_absolute():
        raise UserError(
            f"storage is {storage!r}, which in a job is part of a copy that Ray throws away: give "
            "an absolute path that every node sees, or object storage; where this machine is the "
            f"whole cluster: --set storage={shlex.quote(str(Path(storage).resolve()))}"
        )


def _settled(experiment: Experiment, folder: Path | None) -> Experiment:
    """The experiment, checked as ``validate`` does, with the Task's paths absolute.

    Where it names a path that is not on this machine, the check is the job's, which begins with it.
    """
    from search_spaces import default_configuration

    try:
        found, space = trainable.validate(experiment, folder)
        read_earlier(experiment, space)
    except UserError as error:
        named = [*experiment.settings.values(), *experiment.search.warm_start]
        elsewhere = [path for path in named if _is_absolute(path) and not Path(path).exists()]
        if not elsewhere:
            raise
        print(
            f"note: {elsewhere[0]} is not on this machine, so the job itself checks the "
            f"experiment; here: {error}"
        )
        return experiment
    return found.settle(experiment, default_configuration(space))


def _moved(experiment: Experiment, settled: Experiment) -> dict[str, Any]:
    """What is named by relative path and does not travel: dotted path -> absolute."""
    moved: dict[str, Any] = {
        f"settings.{key}": value
        for key, value in settled.settings.items()
        if value != experiment.settings[key] and _is_absolute(value)
    }
    earlier = experiment.search.warm_start
    runs = [run if "://" in run else str(Path(run).expanduser().absolute()) for run in earlier]
    return moved | ({"search.warm_start": runs} if runs != earlier else {})


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()


def _places_below(folder: Path, experiment: Experiment) -> Iterator[str]:
    """Data, storage and cache that lie in ``folder``, as .gitignore would name them."""
    for value in (experiment.storage, experiment.cache.dir, *experiment.settings.values()):
        if not isinstance(value, str) or "://" in value:
            continue
        path = Path(value).expanduser()
        if path.is_absolute() and path != folder and path.is_relative_to(folder):
            yield "/" + re.sub(r"([*?\[\]\\])", r"\\\1", str(path.relative_to(folder)))


def _set(values: dict[str, Any]) -> list[str]:
    """Overrides as arguments; JSON is YAML."""
    return [
        part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")
    ]
