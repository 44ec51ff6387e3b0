"""What a rank's GPU does while an epoch runs, from NVIDIA's management library (NVML).

Figures are metrics named ``gpu/rank<R>/<figure>``; "GPU use" of a trial, as a table shows it, is
:func:`over_ranks` of its latest metrics: the mean of ``gpu/rank<R>/use_percent_mean``.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

GPU_PREFIX = "gpu/"
"""How the names of the metrics begin."""

INTERVAL_SECONDS = 1.0
"""Between two samples. NVML's own use is over the last 1/6 s to 1 s."""
JOIN_SECONDS = 10.0
"""How long a driver that does not answer may hold up the end of an epoch, once in a process."""

logger = logging.getLogger(__name__)

_unanswered = threading.Event()
"""The driver has not answered: nothing is watched any more in this process."""

Sample = dict[str, float]
"""Figure -> value at one moment; what the GPU does not tell is absent."""


class GpuMonitor:
    """Samples a GPU while a block runs: ``with GpuMonitor(uuid) as gpu: ...; gpu.figures(0)``.

    All of NVML, from its start to its end, happens in one thread that ends with the block. So a
    process that is forked or sent another trial between two blocks has nothing of it. Where there
    is no library, driver or such GPU, there are no figures, and nothing is said.

    Args:
        uuid: NVML's name of the GPU or MIG device (:func:`gpu_uuid`); None: watch nothing.
        interval: seconds between two samples. The last one is taken when the block ends.

    """

    def __init__(self, uuid: str | None, interval: float = INTERVAL_SECONDS) -> None:
        self._uuid, self._interval = uuid, interval
        self._samples: list[Sample] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._uuid is not None and not _unanswered.is_set():
            self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the last sample and end the thread, unless the driver holds it."""
        self._ended.set()
        if self._thread is None:
            return
        self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            _unanswered.set()
            logger.warning(
                "the driver of %s does not answer: the GPU is not watched any more", self._uuid
            )

    def figures(self, rank: int) -> dict[str, float]:
        """Means and maxima over the block, by the metric's name.

        ``use_percent``: of the time in which a kernel ran; ``memory_gb`` (10^9 bytes) and
        ``memory_percent``: taken by all processes on the GPU; ``power_w``; ``temperature_c``: each
        with ``_mean`` and ``_max``. ``throttled_share``: of the samples in which the GPU was
        slowed down.
        """
        found = summarize(list(self._samples))
        return {f"{GPU_PREFIX}rank{rank}/{name}": value for name, value in found.items()}

    def _run(self) -> None:
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:  # no driver
            return
        try:
            self._sample(pynvml)
        except Exception:  # the figures are not worth a trial
            logger.exception("the GPU monitor failed")
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _sample(self, nvml: Any) -> None:
        try:
            device = find_device(nvml, str(self._uuid))
        except nvml.NVMLError:
            return
        while device is not None:
            ended = self._ended.wait(self._interval)
            self._samples.append(read_sample(nvml, device))
            if ended:
                return


def gpu_uuid(device: Any) -> str | None:
    """NVML's name of the GPU or MIG device behind a ``torch.device``; None: it is none.

    ``CUDA_VISIBLE_DEVICES`` is believed where it names devices by UUID: of a MIG device, CUDA may
    tell its GPU's. An index in it is CUDA's, which need not be NVML's: there CUDA is asked.
    """
    if device.type != "cuda":
        return None
    index = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    named = visible[index].strip() if index < len(visible) else ""
    if named.startswith(("GPU-", "MIG-")):
        return named
    import torch

    try:
        return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    except (AttributeError, RuntimeError, AssertionError):  # a torch without CUDA, or no NVIDIA GPU
        return None


def find_device(nvml: Any, uuid: str) -> Any:
    """NVML's handle of a device; None: it is a GPU in parts, and which one is used is unknown.

    ``uuid`` may be the beginning of one, as CUDA allows, or a MIG device's with ``GPU-`` before it.

    Raises:
        pynvml.NVMLError: there is no such device.

    """
    try:
        device = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        if uuid.startswith("MIG-"):
            raise
        device = _by_beginning(nvml, uuid)
    if device is None:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid.removeprefix('GPU-')}")
    if not uuid.startswith("MIG-"):
        with suppress(nvml.NVMLError):  # most GPUs cannot be parted
            if nvml.nvmlDeviceGetMigMode(device)[0] == nvml.NVML_DEVICE_MIG_ENABLE:
                return None
    return device


def _by_beginning(nvml: Any, beginning: str) -> Any:
    """The one GPU whose UUID begins so, or None."""
    devices = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
    found = [d for d in devices if nvml.nvmlDeviceGetUUID(d).startswith(beginning)]
    return found[0] if len(found) == 1 else None


def read_sample(nvml: Any, device: Any) -> Sample:
    """What ``device`` tells now; each of NVML's functions may be missing for it."""
    sample: Sample = {}
    for read in READERS:
        with suppress(nvml.NVMLError):
            sample |= read(nvml, device)
    return sample


def _use(nvml: Any, device: Any) -> Sample:
    return {"use_percent": float(nvml.nvmlDeviceGetUtilizationRates(device).gpu)}


def _memory(nvml: Any, device: Any) -> Sample:
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    return {"memory_gb": memory.used / 1e9, "memory_percent": 100 * memory.used / memory.total}


def _power(nvml: Any, device: Any) -> Sample:
    return {"power_w": nvml.nvmlDeviceGetPowerUsage(device) / 1000}


def _temperature(nvml: Any, device: Any) -> Sample:
    celsius = nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)
    return {"temperature_c": float(celsius)}


def _throttled(nvml: Any, device: Any) -> Sample:
    harmless = (
        nvml.nvmlClocksEventReasonGpuIdle | nvml.nvmlClocksEventReasonApplicationsClocksSetting
    )
    try:
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(device)
    except nvml.NVMLError_FunctionNotFound:  # drivers before 535
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
    return {"throttled_share": float(bool(reasons & ~harmless))}


READERS: tuple[Callable[[Any, Any], Sample], ...] = (
    _use, _memory, _power, _temperature, _throttled
)  # fmt: skip


def summarize(samples: list[Sample]) -> dict[str, float]:
    """Mean and maximum of each figure, over the samples that have it; of a share, the mean."""
    found: dict[str, float] = {}
    for name in sorted({name for sample in samples for name in sample}):
        values = [sample[name] for sample in samples if name in sample]
        mean = round(sum(values) / len(values), 3)
        if name.endswith("_share"):
            found[name] = mean
        else:
            found |= {f"{name}_mean": mean, f"{name}_max": round(max(values), 3)}
    return found


def over_ranks(metrics: Mapping[str, float], figure: str = "use_percent_mean") -> float | None:
    """A figure's mean over the ranks that report it, such as ``use_percent_mean``; None: none."""
    values = list(by_rank(metrics, figure).values())
    return sum(values) / len(values) if values else None


def by_rank(metrics: Mapping[str, float], figure: str) -> dict[str, float]:
    """Rank -> its value of a figure, out of a trial's metrics."""
    beginning, end = f"{GPU_PREFIX}rank", f"/{figure}"
    return {
        name.removeprefix(beginning).removesuffix(end): value
        for name, value in metrics.items()
        if name.startswith(beginning) and name.endswith(end)
    }
