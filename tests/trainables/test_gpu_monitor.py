"""The GPU monitor, against a driver made for the test: through pynvml's own ctypes path."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables import gpu_monitor
from trainables.gpu_monitor import GpuMonitor, gpu_uuid, over_ranks, read_sample, summarize
from trainables.rank_group import merged

CUDA = SimpleNamespace(type="cuda", index=0)
WATCH = """
import ctypes, json, threading, time
from types import SimpleNamespace
from trainables.gpu_monitor import GpuMonitor, gpu_uuid

with GpuMonitor(gpu_uuid(SimpleNamespace(type="cuda", index=0)), interval=0.02) as gpu:
    time.sleep(0.3)
try:
    fake = ctypes.CDLL("libnvidia-ml.so.1")
    counts = fake.fake_samples(), fake.fake_opened()
except OSError:
    counts = 0, 0
print(json.dumps([gpu.figures(0), *counts, threading.active_count()]))
"""
RANK = """
import json, sys
from trainables import rank
sys.path.insert(0, sys.argv[1])
rank.gpu_uuid = lambda device: "GPU-bbbb-2"
one = rank.Rank(0, 1, gpus=0, threads=1)
one.build(rank.TrialSpec("toy_task:Toy", {"sleep": 0.1}, 0, 1, sys.argv[2]), None, 0)
print(json.dumps(one.run_epoch(0)))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up libnvidia-ml.so.1."""
    return compiled(tmp_path_factory.mktemp("driver"))


def compiled(folder: Path, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler, gcc")
    source, library = Path(__file__).with_name("fake_nvml.c"), folder / "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-w", *flags, "-o", library, source]
    subprocess.run(list(map(str, command)), check=True)
    return folder


def watch(driver: Path | str, visible: str, wrong: str = "", code: str = WATCH, *args: Any) -> Any:
    """What ``code`` prints in a process of its own, with that driver."""
    env = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": visible, "NVML_FAKE": wrong}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not done.stderr
    return json.loads(done.stdout)


def expected(samples: int) -> dict[str, float]:
    """What ``fake_nvml.c`` says of its second GPU, after so many samples."""
    r = [sample % 4 for sample in range(samples)]
    figures = {
        "use_percent": [20 + 10 * x for x in r],
        "memory_gb": [8 + 8 * x for x in r],
        "memory_percent": [10 + 10 * x for x in r],
        "power_w": [200.5 + x for x in r],
        "temperature_c": [60 + x for x in r],
    }
    found = {}
    for name, values in figures.items():
        found[f"gpu/rank0/{name}_mean"] = round(sum(values) / samples, 3)
        found[f"gpu/rank0/{name}_max"] = max(values)
    return found | {"gpu/rank0/throttled_share": round(sum(x in (1, 2) for x in r) / samples, 3)}


@pytest.mark.parametrize("visible", ["GPU-bbbb-2", "GPU-bbbb-2,GPU-aaaa-1", "GPU-bb"])
def test_means_and_maxima_of_the_gpu_that_is_named(visible: str, driver: Path) -> None:
    figures, samples, opened, threads = watch(driver, visible)
    assert samples >= 4
    assert figures == expected(samples)
    assert opened == 0, "every nvmlInit has its nvmlShutdown"
    assert threads == 1, "the thread has ended"


def test_what_a_card_does_not_tell_is_absent_and_nothing_else(driver: Path) -> None:
    figures, samples, _, _ = watch(driver, "GPU-bbbb-2", "no-power")
    assert figures == {k: v for k, v in expected(samples).items() if "power" not in k}


def test_a_mig_device_tells_its_memory(driver: Path) -> None:
    figures, samples, _, _ = watch(driver, "MIG-cccc-3")
    assert figures == {k: v for k, v in expected(samples).items() if "memory" in k}


def test_a_driver_before_535_has_another_name_for_throttling(tmp_path: Path) -> None:
    figures, samples, _, _ = watch(compiled(tmp_path, "-DOLD"), "GPU-bbbb-2")
    assert figures == expected(samples)


@pytest.mark.parametrize(
    ("visible", "wrong"),
    [("GPU-bbbb-2", "no-driver"), ("GPU-dddd-4", ""), ("MIG-dddd-4", ""), ("GPU-bbbb-2", "parted")],
)
def test_where_nothing_is_known_it_is_silent_and_off(
    visible: str, wrong: str, driver: Path
) -> None:
    """No driver; no such GPU; no such part; a GPU in parts, of which one is used."""
    assert watch(driver, visible, wrong) == [{}, 0, 0, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a driver is there")
def test_without_the_library_it_is_silent_and_off(tmp_path: Path) -> None:
    assert watch(tmp_path, "GPU-bbbb-2") == [{}, 0, 0, 1]


def test_a_rank_reports_its_gpu(driver: Path, tmp_path: Path) -> None:
    examples = Path(__file__).parent.parent / "examples"
    metrics = watch(driver, "", "", RANK, examples, tmp_path)
    assert {"loss", "memory_mb", "gpu/rank0/use_percent_mean"} <= set(metrics)
    assert all(type(value) in (int, float) for value in metrics.values())


# -- the rules, without a driver ------------------------------------------------------------------


class Twin:
    """As much of the module pynvml as the sampling needs; what is in ``broken`` raises."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVMLError_FunctionNotFound = type("NVMLError_FunctionNotFound", (NVMLError,), {})
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksEventReasonGpuIdle = 1  # noqa: N815 - as the module calls it
    nvmlClocksEventReasonApplicationsClocksSetting = 2  # noqa: N815

    def __init__(self, *broken: str, reasons: int = 0) -> None:
        self.broken, self.reasons = broken, reasons

    def __getattr__(self, name: str) -> Any:
        def answer(*_: Any) -> Any:
            if name in self.broken:
                raise self.NVMLError(name)
            return {
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50),
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2 * 10**9, total=8 * 10**9),
                "nvmlDeviceGetPowerUsage": 150_250,
                "nvmlDeviceGetTemperature": 61,
                "nvmlDeviceGetCurrentClocksEventReasons": self.reasons,
            }[name]

        return answer


WHOLE = {
    "use_percent": 50, "memory_gb": 2, "memory_percent": 25, "power_w": 150.25,
    "temperature_c": 61, "throttled_share": 0,
}  # fmt: skip


def test_each_figure_stands_alone() -> None:
    functions = {
        "nvmlDeviceGetUtilizationRates": {"use_percent"},
        "nvmlDeviceGetMemoryInfo": {"memory_gb", "memory_percent"},
        "nvmlDeviceGetPowerUsage": {"power_w"},
        "nvmlDeviceGetTemperature": {"temperature_c"},
        "nvmlDeviceGetCurrentClocksEventReasons": {"throttled_share"},
    }
    assert read_sample(Twin(), None) == WHOLE
    for function, figures in functions.items():
        left = {k: v for k, v in WHOLE.items() if k not in figures}
        assert read_sample(Twin(function), None) == left
    assert read_sample(Twin(*functions), None) == {}


@pytest.mark.parametrize(("reasons", "share"), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (0x21, 1)])
def test_idle_and_clocks_set_by_hand_are_no_throttling(reasons: int, share: float) -> None:
    assert read_sample(Twin(reasons=reasons), None)["throttled_share"] == share


def test_a_figure_counts_where_it_was_told() -> None:
    samples = [{"power_w": 100.0}, {}, {"power_w": 200.0, "throttled_share": 1.0}]
    assert summarize(samples) == {"power_w_mean": 150, "power_w_max": 200, "throttled_share": 1}
    assert summarize([]) == {}


def test_an_index_is_cudas_and_a_uuid_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def properties(index: int) -> Any:
        asked.append(index)
        return SimpleNamespace(uuid="1234-56")

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    for visible in ("1", "0,1", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpu_uuid(CUDA) == "GPU-1234-56"
    assert asked == [0, 0, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1/2/3, GPU-4")
    assert gpu_uuid(CUDA) == "MIG-1/2/3"
    assert gpu_uuid(SimpleNamespace(type="cuda", index=1)) == "GPU-4"
    assert gpu_uuid(torch.device("cpu")) is None


def test_a_cpu_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_monitor.threading, "Thread", None)
    with GpuMonitor(gpu_uuid(torch.device("cpu"))) as gpu:
        pass
    assert gpu.figures(0) == {}


def test_a_driver_that_does_not_answer_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    driver = SimpleNamespace(nvmlInit=answers.wait, NVMLError=Twin.NVMLError)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(gpu_monitor, "JOIN_SECONDS", 0.05)
    monkeypatch.setattr(gpu_monitor, "_unanswered", threading.Event())
    threads = threading.active_count()
    try:
        for _ in range(3):
            with GpuMonitor("GPU-aaaa-1") as gpu:
                pass
            assert gpu.figures(0) == {}
        assert threading.active_count() == threads + 1
        assert caplog.text.count("the driver of GPU-aaaa-1 does not answer") == 1
    finally:
        monkeypatch.setattr(gpu_monitor.GpuMonitor, "_sample", lambda *_: None)
        driver.nvmlShutdown = lambda: None
        answers.set()


def test_each_ranks_gpu_shows_in_the_trials_metrics() -> None:
    ranks = [
        {"loss": 0.5, "memory_mb": 10.0, "gpu/rank0/use_percent_mean": 90.0},
        {"loss": 0.6, "memory_mb": 20.0, "gpu/rank1/use_percent_mean": 70.0},
    ]
    assert merged(ranks) == {
        "loss": 0.5,
        "memory_mb": 20.0,
        "gpu/rank0/use_percent_mean": 90.0,
        "gpu/rank1/use_percent_mean": 70.0,
    }
    assert over_ranks(merged(ranks)) == 80
    assert over_ranks({"loss": 0.5}) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_busy_while_it_multiplies() -> None:
    device = torch.device("cuda", 0)
    matrix = torch.ones(4096, 4096, device=device)
    with GpuMonitor(gpu_uuid(device), interval=0.1) as gpu:
        for _ in range(2000):
            matrix = (matrix @ matrix).clamp(max=1)
        torch.cuda.synchronize()
    figures = gpu.figures(0)
    total_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
    assert figures["gpu/rank0/use_percent_max"] > 50
    assert 0 < figures["gpu/rank0/memory_gb_max"] < total_gb * 1.1
    assert 0 < figures["gpu/rank0/temperature_c_mean"] < 120
