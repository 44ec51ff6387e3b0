"""Memory of a rank's process: batches that fit, growth that does not end, what a trial leaves."""

import ctypes
import gc
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import psutil
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

MB = 2**20

MEMORY_METRICS = frozenset(
    {"memory_mb", "gpu_memory_mb", "gpu_reserved_mb", "memory_growth_mb", "tensor_growth"}
)
"""What :meth:`MemoryWatch.epoch` reports."""

NOTHING_FITS = "not even one example fits into the memory: make the model or its input smaller"
"""Why a trial fails that no smaller micro-batch can help."""

GROWING_EPOCHS = 5
"""Epochs that each end with more memory than the one before, until that is called growth."""
GROWING_LEAST = 1.0
"""What an epoch must add to count, in MB or tensors; allocators are never quite still."""
LEFT_MB, LEFT_SHARE = 256.0, 0.25
"""What a trial may leave behind, above the baseline: the larger of the two."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was no room: torch's own, cuBLAS's, CUDA's, the host's."""
    text = str(error).lower()
    marks = ("out of memory", "cublas_status_alloc_failed", "defaultcpuallocator: can't allocate")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(mark in text for mark in marks)
    )


def release() -> None:
    """Give back what nothing refers to any more: to the system, and to the other GPU's users."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


# -- batches that fit ---------------------------------------------------------------------------


@dataclass
class _Known:
    """What was found out about batches of one kind."""

    fits: int = 0
    fails: int | None = None
    """The least that did not fit; None: none has failed yet."""


_known: dict[Hashable, _Known] = {}


def largest_fitting(
    wanted: int, attempt: Callable[[int], None], kind: Hashable | None
) -> tuple[int, int]:
    """The largest of ``wanted``, its half, its quarter, ... for which ``attempt`` finds room.

    Args:
        wanted: examples to begin with.
        attempt: runs so many examples through; raises an out-of-memory error.
        kind: equal for attempts that need the same memory an example: the answer is remembered
            for the process; None: it is not.

    Returns:
        The number, 0 where not even one example fits; and how many attempts failed.

    """
    known = _known.setdefault(kind, _Known()) if kind is not None else _Known()
    size, failures = wanted, 0
    while known.fails is not None and known.fails <= size > 1:  # begin below what is known to fail
        size //= 2
    while size > known.fits and not _fits(size, attempt):
        known.fails, failures = size, failures + 1
        size //= 2
    if not size:  # perhaps for a moment only: the next trial begins from the top again
        known.fails = None
    known.fits = max(known.fits, size)
    return size, failures


def remember_failure(kind: Hashable, size: int) -> None:
    """Note that ``size`` examples did not fit after all, in the midst of an epoch."""
    known = _known.setdefault(kind, _Known())
    known.fits = known.fits if known.fits < size else 0
    known.fails = min(size, known.fails or size)


def _fits(size: int, attempt: Callable[[int], None]) -> bool:
    try:
        attempt(size)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fitted = False
    else:
        fitted = True
    release()  # outside the handler, whose traceback holds on to the tensors
    return fitted


# -- growth -------------------------------------------------------------------------------------


class MemoryWatch:
    """Measures a rank's process after every epoch, a GPU after every step of an optimizer.

    Args:
        device: the rank's.

    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._host: list[float] = []
        self._allocated: list[float] = []
        """On the GPU, at the end of each epoch."""
        self._steps: list[tuple[int, int]] = []
        """Bytes allocated and reserved on the GPU after each step of the epoch."""
        self._tensors: list[float] = []
        """Alive at the end of each epoch."""
        self._baseline: tuple[float, float] | None = None
        self._freezes = 2
        """At the start, and after the first trial, in which much more is imported."""
        if self._gpu is not None:
            register_optimizer_step_post_hook(lambda *_: self._step())

    def start_trial(self) -> None:
        """Forget the last trial's epochs. No Task is there the first two times."""
        self.start_series()
        if self._freezes:  # what was imported stays: counting tensors need not look through it
            if self._freezes == 1:  # a trial has left garbage
                gc.collect()
            gc.freeze()
            self._freezes -= 1

    def start_series(self) -> None:
        """Measure growth from here on."""
        self._host, self._allocated, self._steps, self._tensors = [], [], [], []

    def epoch(self) -> dict[str, float]:
        """The epoch's figures in MB.

        ``memory_mb``: what this process holds of its own, without files it maps; on a GPU
        ``gpu_memory_mb`` and ``gpu_reserved_mb``, the most after any step of the epoch.
        ``memory_growth_mb``: what the last epochs have added, if each has added something; 0: they
        have not. It is on the host or the GPU, whichever has grown more. ``tensor_growth``: the
        same of the number of tensors that hold on to a graph: a loss that is kept costs little,
        until what it was computed from does.
        """
        self._tensors.append(tensors_with_graph())
        self._host.append(host_mb())
        found = {"memory_mb": self._host[-1]}
        if self._gpu is not None:
            self._allocated.append(self._on_gpu())
            found["gpu_memory_mb"] = max((a for a, _ in self._steps), default=0) / MB
            found["gpu_reserved_mb"] = max((r for _, r in self._steps), default=0) / MB
        if growth(self._host) or growth(self._tensors) or growth(self._allocated):
            release()  # perhaps it was only not collected yet
            self._host[-1], self._tensors[-1] = host_mb(), tensors_with_graph()
            self._allocated[-1:] = [self._on_gpu()] if self._gpu is not None else []
        within = step_growth([allocated / MB for allocated, _ in self._steps])
        self._steps = []
        found["memory_growth_mb"] = max(growth(self._host), growth(self._allocated), within)
        found["tensor_growth"] = growth(self._tensors)
        return {name: round(value, 1) for name, value in found.items()}

    def left_behind(self, kept_bytes: int) -> float:
        """MB that trials have left in this process, above what is allowed; 0: nothing to mend.

        To be asked between two trials, when the last one's Task is gone. The first answer makes the
        baseline: the first trial fills the caches.

        Args:
            kept_bytes: of host memory, what is kept on purpose.

        """
        excess = self._excess(kept_bytes)
        if excess:  # perhaps only what was not collected yet; to collect takes a while
            release()
            excess = self._excess(kept_bytes)
        return excess

    def _excess(self, kept_bytes: int) -> float:
        gpu = self._on_gpu() if self._gpu is not None else 0.0
        host = host_mb() - kept_bytes / MB
        if self._baseline is None:
            self._baseline = host, gpu
        host_before, gpu_before = self._baseline
        self._baseline = min(host, host_before), min(gpu, gpu_before)
        allowed = max(LEFT_MB, LEFT_SHARE * host_before)
        host_left, gpu_left = host - host_before, gpu - gpu_before
        return max(
            host_left if host_left > allowed else 0.0, gpu_left if gpu_left > LEFT_MB else 0.0
        )

    def _on_gpu(self) -> float:
        return float(torch.cuda.memory_allocated(self._gpu)) / MB

    def _step(self) -> None:
        self._steps.append(
            (torch.cuda.memory_allocated(self._gpu), torch.cuda.memory_reserved(self._gpu))
        )


def host_mb() -> float:
    """MB of RAM that this process holds alone: not the files it maps, which are shared."""
    info = psutil.Process().memory_info()
    return float(info.rss - getattr(info, "shared", 0)) / MB


def tensors_with_graph() -> int:
    """Tensors in this process that were computed with a graph, and hold on to it."""
    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return sum(tensor.grad_fn is not None for tensor in tensors)


def growth(epochs: list[float]) -> float:
    """What the last ``GROWING_EPOCHS`` have added in all, if each has added; else 0.

    ``epochs``: what there is at the end of each, in MB or tensors. The first is left out: it fills
    caches.
    """
    last = epochs[1:][-(GROWING_EPOCHS + 1) :]
    if len(last) <= GROWING_EPOCHS or any(b - a < GROWING_LEAST for a, b in pairwise(last)):
        return 0.0
    return last[-1] - last[0]


def step_growth(steps: list[float]) -> float:
    """The same within an epoch, from quarter to quarter of its steps, each by its least; else 0."""
    quarter = len(steps) // 4
    if quarter < 4:  # too few to tell
        return 0.0
    least = [min(steps[i * quarter : (i + 1) * quarter]) for i in range(4)]
    if any(b - a < GROWING_LEAST for a, b in pairwise(least)):
        return 0.0
    return least[-1] - least[0]
