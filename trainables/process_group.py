"""Forming, aborting and forming again a torch process group in processes that stay."""

import os
import socket
import stat
import threading
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address, ip_interface

import psutil
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

RENDEZVOUS_TIMEOUT = timedelta(seconds=60)
COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Data may be decoded for long before a rank comes; one that is lost is noticed in other ways."""

_abort_lock = threading.Lock()
_connections: dict[int, int] = {}
"""The group's sockets: file descriptor -> inode, which tells whether it is still the same one."""


def use_interface_of(address: str) -> None:
    """Have gloo use the network interface by which other nodes reach this one at ``address``.

    By itself it takes the one that the host's name stands for, which on many hosts is the loopback.
    ``GLOO_SOCKET_IFNAME``, where it is set, decides. NCCL leaves the loopback out by itself and
    uses several interfaces at once: ``NCCL_SOCKET_IFNAME`` is the user's alone.
    """
    if interface := find_interface(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def find_interface(address: str) -> str | None:
    """The network interface that has ``address``, else one in whose network it lies."""
    wanted = ip_address(address)
    near = None
    for name, addresses in psutil.net_if_addrs().items():
        for known in addresses:
            if known.family not in (socket.AF_INET, socket.AF_INET6) or not known.netmask:
                continue
            own = known.address.partition("%")[0]
            if ip_address(own) == wanted:
                return name
            if (
                known.family == socket.AF_INET
                and wanted in ip_interface(f"{own}/{known.netmask}").network
            ):
                near = name
    return near


def open_store(host: str) -> TCPStore:
    """The rendezvous that rank 0 hosts, on a free port (``store.port``).

    It waits for nobody: peers connect when they join.
    """
    return TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=RENDEZVOUS_TIMEOUT)


def join_store(host: str, port: int) -> TCPStore:
    """The rendezvous that rank 0 has opened."""
    return TCPStore(host, port, is_master=False, timeout=RENDEZVOUS_TIMEOUT)


def join_group(store: Store, rank: int, world_size: int, device: torch.device) -> None:
    """Make this process rank ``rank`` of the default group: NCCL on GPUs, gloo on CPUs.

    Returns once every rank has joined. A group that was formed before is left first.
    """
    abort_group()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    before = _sockets()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    opened = dict(_sockets().items() - before.items())
    if device.type != "cuda":
        _connections.update(_group_connections(opened, store, rank, world_size))


def abort_group() -> None:
    """Leave the group at once, without the others: pending collectives then fail, here and there.

    gloo closes its connections only when the last reference to the group goes, and a model in DDP
    holds one; so they are shut down from outside. NCCL must be aborted on every rank.
    """
    with _abort_lock:  # the thread that wakes from its collective aborts too
        for descriptor, inode in _connections.items():
            with suppress(OSError):  # closed already
                if os.fstat(descriptor).st_ino == inode:
                    with _borrowed(descriptor) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
        _connections.clear()
        if dist.is_initialized():
            dist.distributed_c10d._abort_process_group()  # noqa: SLF001 - destroy waits for the others


def is_group_error(error: BaseException) -> bool:
    """Whether ``error`` says that a collective broke, which is seldom the first cause."""
    if isinstance(error, dist.DistError):
        return True
    marks = ("gloo", "NCCL", "process group has not been initialized")
    return isinstance(error, RuntimeError | ValueError) and any(m in str(error) for m in marks)


def _group_connections(
    opened: dict[int, int], store: Store, rank: int, world_size: int
) -> dict[int, int]:
    """Of the sockets opened while the group formed, those between its ranks.

    Ray opens connections at any moment; the group's have the port that some rank listens on at one
    of their ends. The ranks tell each other these ports through the store.
    """
    ports = [_port(descriptor) for descriptor in opened if _listens(descriptor)]
    store.set(f"ports/{rank}", " ".join(map(str, ports)))
    known = {
        int(port) for r in range(world_size) for port in store.get(f"ports/{r}").decode().split()
    }
    return {
        descriptor: inode
        for descriptor, inode in opened.items()
        if not _listens(descriptor) and {_port(descriptor), _port(descriptor, remote=True)} & known
    }


def _sockets() -> dict[int, int]:
    found = {}
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names are all there is
        with suppress(OSError):  # the listing's own descriptor is gone by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found[int(name)] = status.st_ino
    return found


def _listens(descriptor: int) -> bool:
    with _borrowed(descriptor) as connection:
        return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _port(descriptor: int, *, remote: bool = False) -> int:
    """A TCP socket's own port, or that of its other end; 0 where there is none."""
    with _borrowed(descriptor) as connection, suppress(OSError):
        name = connection.getpeername() if remote else connection.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0
    return 0


def _borrowed(descriptor: int) -> socket.socket:
    """A socket object on a copy of the descriptor, to be closed without closing the original."""
    return socket.socket(fileno=os.dup(descriptor))
