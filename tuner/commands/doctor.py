import multiprocessing
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from multiprocessing.connection import Connection
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tuner.errors import UserError
from tuner.experiment import Cache

GIB = 2**30
SHARED_MEMORY_GIB = 2
"""Ray keeps what actors pass to each other in /dev/shm; a container's default of 64 MB slows it."""
GLOO_SECONDS = 60
FREE_DISK_GIB = 5
"""Room for data in the cache folder."""


@dataclass(frozen=True)
class Finding:
    """What a check found; ``remedy`` where something is to be done about it."""

    level: str
    text: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]


def doctor(*, start_ray: bool) -> None:
    """Print a line for each thing that a run needs: ok, warn or fail, and a remedy.

    Raises:
        UserError: something failed.

    """
    checks: list[Check] = [
        _check_python,
        _check_packages,
        _check_pynvml,
        _check_hpbandster,
        _check_torch,
        _check_gpus,
        _check_gloo,
        _check_shared_memory,
        _check_cache,
        _check_cluster,
    ]
    failed = 0
    for check in [*checks, _check_ray] if start_ray else checks:
        for finding in _findings(check):
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(f"{finding.level:<6}{finding.text}{remedy}", flush=True)
            failed += finding.level == "fail"
    if failed:
        raise UserError(f"{failed} of these checks failed; each says what to do")


def _findings(check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - a package that is missing or broken, most likely
        what = check.__name__.removeprefix("_check_").replace("_", " ")
        problem = f"{type(error).__name__}: {error}"
        yield Finding(
            "fail", f"{what} cannot be checked: {problem}", "reinstall tuner with all it needs"
        )


def _check_python() -> Iterator[Finding]:
    needed = str(distribution("tuner").metadata["Requires-Python"])
    found = platform.python_version()
    if SpecifierSet(needed).contains(found):
        yield Finding("ok", f"Python {found}")
    else:
        yield Finding("fail", f"Python is {found}, tuner needs {needed}", "install another Python")


def _check_packages() -> Iterator[Finding]:
    """Compare what is installed with the bounds in tuner's own metadata."""
    sound = []
    for requirement in map(Requirement, requires("tuner") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("fail", f"{requirement.name} is not installed", remedy)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            sound.append(f"{requirement.name} {found}")
        else:
            bounds = requirement.specifier
            yield Finding("fail", f"{requirement.name} is {found}, tuner needs {bounds}", remedy)
    yield Finding("ok", f"packages: {', '.join(sound)}")


def _check_pynvml() -> Iterator[Finding]:
    try:
        found = version("pynvml")
    except PackageNotFoundError:
        return
    yield Finding(
        "warn",
        f"the deprecated package pynvml {found} hides nvidia-ml-py, and torch warns of it",
        "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py",
    )


def _check_hpbandster() -> Iterator[Finding]:
    try:
        from hpbandster.optimizers.config_generators.bohb import BOHB  # noqa: F401
    except Exception as error:  # noqa: BLE001 - netifaces, without a wheel, may be broken too
        yield Finding(
            "fail",
            f"hpbandster cannot be imported ({error}), so there is no bohb",
            "install a C compiler (apt-get install gcc python3-dev), then pip install "
            "--force-reinstall netifaces hpbandster",
        )
    else:
        yield Finding("ok", "hpbandster can be imported")


def _check_torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision  # noqa: F401 - it fails to import beside another build of torch
    except Exception as error:  # noqa: BLE001 - a missing library is an OSError, and so on
        yield Finding(
            "fail",
            f"torch and torchvision cannot be imported ({error})",
            "install both from one index: pip install --force-reinstall torch torchvision",
        )
        return
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    nccl = ""
    if torch.cuda.is_available() and torch.distributed.is_nccl_available():
        nccl = ", NCCL " + ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    yield Finding("ok", f"torch {torch.__version__}, {cuda}{nccl}")


def _check_gpus() -> Iterator[Finding]:
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield Finding("ok", "no GPU: trials run on the CPU")
        return
    driver = pynvml.nvmlSystemGetDriverVersion()
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        used = f"{memory.used / GIB:.1f} of {memory.total / GIB:.0f} GiB in use"
        yield Finding("ok", f"GPU {index}: {name}, {used}, driver {driver}")
    if not torch.cuda.is_available():
        yield Finding(
            "fail",
            f"torch {torch.__version__} cannot use the GPUs (driver {driver})",
            "install a torch with CUDA, or a newer driver; CUDA_VISIBLE_DEVICES must not be empty",
        )
    elif not torch.distributed.is_nccl_available():
        yield Finding(
            "fail",
            "torch was built without NCCL, which trials on several GPUs need",
            "install another build",
        )


def _check_gloo() -> Iterator[Finding]:
    """Add two numbers over two processes, which is what the ranks of a trial on CPUs do."""
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_all_reduce, args=(rank, folder, sender), daemon=True)
            for rank in range(2)
        ]
        for rank in ranks:
            rank.start()
        sender.close()
        answers = [receiver.recv() for _ in ranks if receiver.poll(GLOO_SECONDS)]
        seconds = time.monotonic() - started
        for rank in ranks:
            rank.join(5)
            rank.kill()
    if answers == [3.0, 3.0]:
        yield Finding("ok", f"gloo: two processes add up a tensor ({seconds:.0f} s to start them)")
        return
    silence = f"no answer in {GLOO_SECONDS} s"
    problem = next((answer for answer in answers if isinstance(answer, str)), silence)
    yield Finding(
        "fail",
        f"gloo: two processes cannot reach each other ({problem})",
        f"see that {socket.gethostname()!r} resolves to an address of this machine, or set "
        "GLOO_SOCKET_IFNAME to its network interface",
    )


def _all_reduce(rank: int, folder: str, answers: "Connection[str | float, None]") -> None:
    import torch
    import torch.distributed as dist

    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
        )
        tensor = torch.tensor([rank + 1.0])
        dist.all_reduce(tensor)
        answers.send(tensor.item())
        dist.destroy_process_group()
    except Exception as error:  # noqa: BLE001 - reported by the other side
        answers.send(" ".join(str(error).split()))


def _check_shared_memory() -> Iterator[Finding]:
    path = Path("/dev/shm")  # noqa: S108 - the very thing that is checked
    if not path.is_dir():
        return
    size = shutil.disk_usage(path).total / GIB
    text = f"shared memory ({path}): {size:.1f} GiB"
    if size < SHARED_MEMORY_GIB:
        yield Finding("warn", text, "too little for Ray; in a container: docker run --shm-size=4g")
    else:
        yield Finding("ok", text)


def _check_cache() -> Iterator[Finding]:
    cache = Path(Cache().dir).expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        beside = cache / f".doctor.{os.getpid()}"
        beside.touch()
        beside.unlink()
    except OSError as error:
        yield Finding(
            "fail", f"cache {cache} cannot be written ({error.strerror})", "--set cache.dir=FOLDER"
        )
        return
    free = shutil.disk_usage(cache).free / GIB
    text = f"cache {cache} can be written, {free:.0f} GiB free"
    if free < FREE_DISK_GIB:
        yield Finding("warn", text, "make room, or name another folder: --set cache.dir=FOLDER")
    else:
        yield Finding("ok", text)


def _check_cluster() -> Iterator[Finding]:
    """Join the cluster that runs would join, where one is set."""
    from tuner.cluster import joined

    address = joined(None)
    if not address:
        return
    remedy = "start it (ray start --head), correct RAY_ADDRESS, or unset it to run on this machine"
    try:
        resources = _start_ray(address)
    except Exception as error:  # noqa: BLE001 - a refusal, a wrong version, a missing token
        reason = error.__cause__ or error  # without what `run` would say around it
        yield Finding("fail", f"RAY_ADDRESS is {address}: no cluster answers ({reason})", remedy)
    else:
        yield Finding("ok", f"RAY_ADDRESS is {address}: a cluster with {resources}")


def _check_ray() -> Iterator[Finding]:
    started = time.monotonic()
    try:
        resources = _start_ray("local")
    except Exception as error:  # noqa: BLE001 - whatever keeps it from starting
        problem = " ".join(str(error).split())
        yield Finding("fail", f"Ray does not start: {problem}", "see /tmp/ray/session_latest/logs")
    else:
        yield Finding("ok", f"Ray starts, in {time.monotonic() - started:.0f} s: {resources}")


def _start_ray(address: str) -> str:
    """The resources of the cluster at ``address``, in words."""
    import ray

    from tuner.cluster import cluster
    from tuner.output import captured

    with captured(Path(os.devnull)), cluster(address):
        resources = ray.cluster_resources()
    return ", ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
