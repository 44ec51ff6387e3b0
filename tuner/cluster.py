"""The Ray cluster a run uses: one of its own, or one that is there."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.errors import UserError


@contextmanager
def cluster(
    address: str | None, folder: Path | None = None, metadata: Mapping[str, str] | None = None
) -> Iterator[str | None]:
    """Join the cluster at ``address`` (or ``RAY_ADDRESS``), else start one; yields its dashboard.

    Args:
        address: ``host:port`` or ``ray://host:port``; None starts a cluster on this machine that
            ends with the run.
        folder: where the user's modules lie; the workers can import from it.
        metadata: what the dashboard says of this job.

    Raises:
        UserError: no cluster answers at the address.

    """
    import ray
    from ray.job_config import JobConfig

    address = address or os.environ.get("RAY_ADDRESS")
    paths = [str(path.resolve()) for path in (folder, Path.cwd()) if path is not None]
    python_path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    settings = {
        "PYTHONPATH": python_path,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a job may set a PYTHONPATH, which ours begins from
    }
    with environment(settings):
        try:
            context = ray.init(
                address=address or "local",
                job_config=JobConfig(metadata=dict(metadata or {})),
                runtime_env={"env_vars": {"PYTHONPATH": python_path}} if address else None,
                logging_level=logging.WARNING,
                include_dashboard=None if address else True,
                _temp_dir=os.environ.get("RAY_TMPDIR") if not address else None,
            )
        except ConnectionError as error:
            raise UserError(
                f"--address is {address!r}: no Ray cluster answers there ({error}); start one with "
                "ray start --head, or leave --address out. If it wants a token, set "
                "RAY_AUTH_MODE=token"
            ) from error
    try:
        yield context.dashboard_url
    finally:
        ray.shutdown()


def count_slots(bundles: list[dict[str, float]], limit: int | None = None) -> int:
    """How many trials with these bundles (all alike) fit into the cluster at once.

    Raises:
        UserError: not even one does: Ray would wait for ever.

    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return fitting_slots(bundles, nodes, limit)


def fitting_slots(
    bundles: list[dict[str, float]], nodes: list[Mapping[str, float]], limit: int | None = None
) -> int:
    """How many trials with these bundles (all alike) fit onto nodes with these resources.

    Raises:
        UserError: not even one does.

    """
    bundle, ranks = bundles[0], len(bundles)
    fitting = sum(_fit(bundle, node) for node in nodes)
    slots = fitting // ranks
    if slots < 1:
        held = {key: sum(node.get(key, 0) for node in nodes) for key in bundle}
        need = ", ".join(f"{ranks * amount:g} {_label(key)}" for key, amount in bundle.items())
        have = ", ".join(f"{amount:g} {_label(key)}" for key, amount in held.items())
        raise UserError(
            f"resources: a trial needs {need} ({ranks} ranks), but the cluster has {have}; lower "
            "resources.gpus_per_trial, workers_per_trial or cpus_per_worker"
        )
    return min(slots, limit) if limit else slots


def _fit(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    return min(_shares(node.get(key, 0), amount) for key, amount in bundle.items())


def _shares(held: float, amount: float) -> int:
    """How often ``amount`` goes into what a node holds; parts of a GPU lie on one GPU each."""
    if amount < 1 and held >= 1:
        return int(1 / amount + 1e-9) * int(held)
    return int(held / amount + 1e-9)


def _label(resource: str) -> str:
    return {"CPU": "CPUs", "GPU": "GPUs"}.get(resource, resource)


@contextmanager
def environment(values: Mapping[str, Any]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update({key: str(value) for key, value in values.items()})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
