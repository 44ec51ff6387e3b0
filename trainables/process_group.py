"""Forming, aborting and forming again a torch process group in processes that stay."""

from datetime import timedelta

import torch
import torch.distributed as dist

RENDEZVOUS_TIMEOUT = timedelta(seconds=60)


def open_store(host: str) -> dist.TCPStore:
    """The rendezvous that rank 0 hosts, on a free port (``store.port``).

    It waits for nobody: peers connect when they join.
    """
    return dist.TCPStore(
        host, 0, is_master=True, wait_for_workers=False, timeout=RENDEZVOUS_TIMEOUT
    )


def join_group(
    store: dist.Store, rank: int, world_size: int, device: torch.device
) -> None:
    """Make this process rank ``rank`` of the default group: NCCL on GPUs, gloo on CPUs.

    Returns once every rank has joined. A group that was formed before is left first.
    """
    abort_group()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        device_id=device if device.type == "cuda" else None,
    )


def abort_group() -> None:
    """Leave the group at once, without the others: their pending collectives then fail, not hang.

    gloo's peers see the connection close; NCCL's must be aborted on every rank.
    """
    if dist.is_initialized():
        dist.distributed_c10d._abort_process_group()  # noqa: SLF001 - the only way out of a collective


def is_group_error(error: BaseException) -> bool:
    """Whether ``error`` says that a collective broke, which is seldom the first cause."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(mark in text for mark in ("gloo", "NCCL"))
