"""Runs a search from the command line while faults strike it, and resumes it where it ended."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import ray
import yaml

from tests.conftest import CommandLine
from tests.faults.checks import (
    check_nothing_left,
    check_run,
    happened,
    living_actors,
    traces,
)
from tests.faults.schedule import (
    FINAL_EPOCHS,
    TRIALS,
    VARIANTS,
    Schedule,
    Variant,
    draw_schedule,
)
from tests.test_end_to_end import outcome
from tests.test_nodes import Nodes
from tuner.final import FINAL, read_final
from tuner.history import read_history
from tuner.search.journal import JOURNAL, read_journal
from tuner.search.trial import Trial, trial_seed

PATIENCE = 120.0
"""Seconds without the result, or the end, that is waited for: the run hangs."""

DISK_MB = 64
"""A run ends where less than 32 MB are left."""

WORKER_CPUS = 8
"""Logical ones, of the node that holds the ranks."""

EXIT_CODES = {"kill_driver": -9, "garble": -9, "full_disk": 1, "ctrl_c": 130}


class Wrong(Exception):  # noqa: N818 - a finding, not an error of this program
    """What must not be."""


@dataclass
class Report:
    """What became of one schedule."""

    schedule: Schedule
    struck: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """The run was over, or had no process, when the fault was due."""
    compared: bool = False
    """The results were held against those of an unbroken run, and are the same."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """How often the driver was killed, and the run resumed."""
        return self.struck["kill_driver"] + self.struck["garble"]


class Injector:
    """Runs on one cluster, one after the other.

    Args:
        address: of the cluster, which nobody else uses meanwhile.
        nodes: those of the cluster, where they may be killed; one holds all ranks.
        keep: leave the folders of runs with a finding.

    """

    def __init__(self, address: str, nodes: Nodes | None = None, *, keep: bool = False) -> None:
        self.address, self.nodes, self.keep = address, nodes, keep
        self.mounts = _can_mount()
        self._unbroken: dict[Variant, Any] = {}
        self._results: dict[Variant, int] = {}
        ray.init(address, log_to_driver=False, logging_level="error")

    def close(self) -> None:
        ray.shutdown()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The faults that can be done on this machine."""
        kinds = ["kill_actor", "kill_peer", "kill_driver", "garble", "stop", "drop_network"]
        kinds += ["ctrl_c", "full_disk"] if self.mounts else ["ctrl_c"]
        kinds += ["kill_node"] if self.nodes else []
        return (*kinds, "garble_live")

    def run(self, seed: int, most: int) -> Report:
        """One run with the faults of ``seed``, ``most`` of them."""
        self._run_unbroken(VARIANTS[seed % len(VARIANTS)])
        schedule = draw_schedule(seed, self._results, self.kinds)
        outside = most - schedule.raised
        schedule = Schedule(seed, schedule.variant, schedule.faults[:outside])
        report, began = Report(schedule), time.monotonic()
        with self._folder(schedule.variant) as folder:
            results = self._results[schedule.variant]
            run = _Run(folder, schedule, self.address, report, nodes=self.nodes, results=results)
            try:
                run.go()
                report.wrong += check_run(run.folder, schedule.variant)
                self._compare(run, report)
            except Wrong as wrong:
                report.wrong.append(str(wrong))
            except Exception as error:  # noqa: BLE001 - a check that cannot be made is a finding
                report.wrong.append(f"{type(error).__name__}: {error}")
            finally:
                run.end()
            self._count_raised(run, report)
            report.wrong += check_nothing_left(run.pids)
            if report.wrong and self.keep:
                kept = Path(tempfile.mkdtemp(prefix=f"tuner-fault-{seed}-"))
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                (kept / "terminal.txt").write_text("\n".join(run.told), encoding="utf-8")
                report.wrong.append(f"its folder: {kept}")
        report.seconds = time.monotonic() - began
        return report

    def _compare(self, run: "_Run", report: Report) -> None:
        if report.schedule.variant.slots > 1:
            return
        report.compared = _found(run.folder) == self._unbroken[report.schedule.variant]
        if not report.compared:
            report.wrong.append("the results are not those of an unbroken run")

    def _count_raised(self, run: "_Run", report: Report) -> None:
        struck = happened(run.folder)
        report.struck.update(struck)
        report.missed.update(Counter(report.schedule.variant.fates.values()) - struck)

    def _run_unbroken(self, variant: Variant) -> None:
        if variant in self._unbroken:
            return
        with self._folder(variant, sleep=0) as folder:
            done = CommandLine(folder, {"RAY_ADDRESS": self.address})("run", "faulty.yaml")
            assert done.returncode == 0, done.stderr
            assert not list(check_run(folder / "disk/faulty", variant))
            self._unbroken[variant] = _found(folder / "disk/faulty")
            self._results[variant] = _count_results(folder / "disk/faulty")
        assert not list(check_nothing_left(set()))

    def _ending(self, variant: Variant) -> dict[str, Any]:
        """What the experiment says of its end. The target is the best that is found without one."""
        if variant.ending == "target":
            plain = variant._replace(ending="")
            self._run_unbroken(plain)
            (trials, _, (best, epoch)), _ = self._unbroken[plain]
            return {"stop": {"target": trials[best][2][epoch]}}
        if variant.ending == "time_budget":
            return {"stop": {"time_budget": "1h"}}
        return {"final": {"epochs": FINAL_EPOCHS, "data": "train"}} if variant.ending else {}

    @contextmanager
    def _folder(self, variant: Variant, sleep: float = 0.25) -> Iterator[Path]:
        """A folder as a user has it, with its runs on a disk of their own."""
        with tempfile.TemporaryDirectory(prefix="tuner-faults-") as name:
            folder = Path(name)
            (folder / "disk").mkdir()
            (folder / "orders").mkdir()
            shutil.copy(Path(__file__).with_name("faulty_task.py"), folder)
            described = _described(folder, variant, sleep) | self._ending(variant)
            if self.nodes:
                described["resources"]["accelerator_type"] = "WORKER"
            (folder / "faulty.yaml").write_text(yaml.safe_dump(described))
            if self.mounts:
                _mount(folder / "disk")
            try:
                yield folder
            finally:
                if self.mounts:
                    subprocess.run(["umount", "--lazy", folder / "disk"], check=True)


class _Run:
    """One search and its sessions."""

    def __init__(
        self,
        home: Path,
        schedule: Schedule,
        address: str,
        report: Report,
        *,
        nodes: Nodes | None,
        results: int,
    ) -> None:
        self.home, self.folder = home, home / "disk/faulty"
        self.schedule, self.report, self.nodes = schedule, report, nodes
        self.all_results = results
        self.pids: set[int] = set()
        """Processes that must be gone in the end."""
        self.told: list[str] = []
        """What the sessions have printed."""
        self._tuner = CommandLine(home, {"RAY_ADDRESS": address})
        self._process = self._start("run", "faulty.yaml")
        self._stopped: set[int] = set()

    def go(self) -> None:
        """To the end of the search; raises :class:`Wrong`."""
        for fault in self.schedule.faults:
            if not self._reaches(fault.results):
                self.report.missed[fault.kind] += 1
                continue
            time.sleep(fault.delay)
            if self._process.poll() is None and getattr(self, f"_{fault.kind}")(Random(fault.draw)):
                self.report.struck[fault.kind] += 1
            else:
                self.report.missed[fault.kind] += 1
        self._reaches(self.all_results)
        self._expect(0, "the last session")
        before = traces(self.folder)
        self._process = self._start("resume", "disk/faulty")
        self._expect(0, "resume of a run that is over")
        if changed := set(before.items()) ^ set(traces(self.folder).items()):
            raise Wrong(f"resume of a run that is over changes {sorted(changed)}")

    def end(self) -> None:
        """End what may be left of it, where something was found."""
        self._go_on_stopped()
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._read()

    # -- the faults; each returns whether it struck -----------------------------------------------

    def _kill_actor(self, random: Random) -> bool:
        return self._signal(random, signal.SIGKILL, peers=False)

    def _kill_peer(self, random: Random) -> bool:
        return self._signal(random, signal.SIGKILL, peers=True)

    def _stop(self, random: Random) -> bool:
        """A rank that stands still for a while, as on a node that swaps or is cut off."""
        if not self._signal(random, signal.SIGSTOP, peers=random.random() < 0.5):
            return False
        time.sleep(random.uniform(1, 6))
        self._go_on_stopped()
        return True

    def _kill_node(self, random: Random) -> bool:  # noqa: ARG002 - a fault takes it
        """All processes of the node that holds the ranks; another one joins."""
        assert self.nodes
        self._note_ranks()
        self.nodes.workers[-1].kill()
        self.nodes.add(WORKER_CPUS).wait()
        return True

    def _drop_network(self, random: Random) -> bool:  # noqa: ARG002 - a fault takes it
        (self.home / "orders/drop_network").touch()
        deadline = time.monotonic() + 20
        while (self.home / "orders/drop_network").exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                (self.home / "orders/drop_network").unlink(missing_ok=True)
                return False
            time.sleep(0.05)
        return True

    def _kill_driver(self, random: Random) -> bool:  # noqa: ARG002 - a fault takes it
        self._process.kill()
        self._expect(EXIT_CODES["kill_driver"], "a killed session")
        self._resume()
        return True

    def _garble(self, random: Random) -> bool:
        """Damage checkpoints while nobody runs them: what a power cut and bad disks leave."""
        self._process.kill()
        self._expect(EXIT_CODES["garble"], "a killed session")
        if wrong := list(check_nothing_left(self.pids)):  # who could still write what is garbled
            raise Wrong(f"after the driver was killed: {wrong}")
        files = sorted(self.folder.rglob("trial_*/checkpoint_*/[!.]*.*"))
        for path in random.sample(files, min(len(files), random.choice((1, 2, 2, 6)))):
            damage(path, random)
        self._resume()
        return bool(files)

    def _garble_live(self, random: Random) -> bool:
        """Damage the newest checkpoint of a trial that waits or is over, while the run goes on."""
        deadline = time.monotonic() + 10
        while not (trials := self._at_rest()):
            if time.monotonic() > deadline or self._process.poll() is not None:
                return False
            time.sleep(0.1)
        checkpoints = random.choice(trials).checkpoints
        try:
            files = sorted(Path(checkpoints[max(checkpoints)]).glob("[!.]*.*"))
            for path in random.sample(files, random.randint(1, len(files))):
                damage(path, random)
        except (FileNotFoundError, ValueError):  # it has just been replaced by a newer one
            return False
        return True

    def _at_rest(self) -> list[Trial]:
        """Trials that no process trains, and that have checkpoints."""
        search = read_history(self.folder).search
        return [t for t in search.trials if t.checkpoints and t not in search.active]

    def _full_disk(self, random: Random) -> bool:  # noqa: ARG002 - a fault takes it
        ballast = self.home / "disk/ballast"
        with ballast.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(2**18))
        code = self._end_of_session()
        ballast.unlink()
        if code == 0:  # it had nothing more to write
            return False
        if code != EXIT_CODES["full_disk"] or "full" not in self.told[-1]:
            raise Wrong(f"on a full disk a session exits with {code}: {self.told[-1]}")
        self._resume()
        return True

    def _ctrl_c(self, random: Random) -> bool:
        self._process.send_signal(signal.SIGINT)
        time.sleep(random.uniform(0, 2))
        self._process.send_signal(signal.SIGINT)
        code = self._end_of_session()
        if code == 0:  # it was about to end
            return False
        if code not in (EXIT_CODES["ctrl_c"], -signal.SIGINT):  # a shell calls both 130
            raise Wrong(f"after Ctrl-C twice a session exits with {code}: {self.told[-1]}")
        self._resume()
        return True

    # -- the sessions -----------------------------------------------------------------------------

    def _start(self, *command: str) -> "subprocess.Popen[str]":
        process = self._tuner.start(*command)
        self.pids.add(process.pid)
        return process

    def _resume(self) -> None:
        """Go on; from the beginning, where not even the journal's first line was written."""
        journal = self.folder / "journal.jsonl"
        begun = journal.exists() and journal.stat().st_size
        command = ("resume", "disk/faulty") if begun else ("run", "faulty.yaml")
        self._process = self._start(*command)

    def _reaches(self, results: int) -> bool:
        """Wait until the journal has so many results; False where the run is over before."""
        deadline, before = 0.0, -1
        while (now := self._results()) < results:
            if self._process.poll() is not None:
                return False
            if now != before:
                deadline, before = time.monotonic() + PATIENCE, now
                self._note_ranks()
            if time.monotonic() > deadline:
                raise Wrong(f"no result in {PATIENCE:.0f} s after {now}: {self._stacks()}")
            time.sleep(0.05)
        return True

    def _results(self) -> int:
        return _count_results(self.folder)

    def _expect(self, code: int, what: str) -> None:
        found = self._end_of_session()
        if found != code:
            raise Wrong(f"{what} exits with {found}, not {code}: {self.told[-1]}")

    def _end_of_session(self) -> int:
        try:
            if not self._process.stdout or not self._process.stdout.closed:
                self._read()
        except subprocess.TimeoutExpired:
            raise Wrong(f"a session does not end within {PATIENCE:.0f} s") from None
        if "Traceback" in self.told[-1]:
            raise Wrong(f"a traceback is shown: {self.told[-1]}")
        return self._process.returncode

    def _read(self) -> None:
        out, error = self._process.communicate(timeout=PATIENCE)
        self.told.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out + error))

    def _stacks(self) -> str:
        return f"driver {self._process.pid}, actors {living_actors()}"

    # -- the ranks --------------------------------------------------------------------------------

    def _signal(self, random: Random, number: int, *, peers: bool) -> bool:
        """Send a signal to one of the trials' processes, once there is one."""
        deadline = time.monotonic() + 10
        while not (found := self._ranks(peers=peers)):
            if time.monotonic() > deadline or self._process.poll() is not None:
                return False
            time.sleep(0.1)
        pid = random.choice(sorted(found))
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        if number == signal.SIGSTOP:
            self._stopped.add(pid)
        return True

    def _ranks(self, *, peers: bool) -> set[int]:
        return {pid for pid, name in self._note_ranks().items() if (name == "Peer") == peers}

    def _note_ranks(self) -> dict[int, str]:
        """Process -> class of each actor there is; they must all be gone in the end."""
        found = {a["Pid"]: a["ActorClassName"] for a in living_actors() if a["State"] == "ALIVE"}
        self.pids |= found.keys()
        return found

    def _go_on_stopped(self) -> None:
        for pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()


def damage(path: Path, random: Random) -> None:
    """Cut a file off, empty it, remove it, or change some of its bytes."""
    content = bytearray(path.read_bytes())
    match random.choice(("cut", "empty", "remove", "garble")):
        case "remove":
            path.unlink()
            return
        case "empty":
            content.clear()
        case "cut":
            del content[random.randrange(max(1, len(content))) :]
        case "garble":
            start = random.randrange(max(1, len(content) - 64))
            content[start : start + 64] = random.randbytes(min(64, len(content) - start))
    path.write_bytes(content)


def _found(run: Path) -> tuple[Any, dict[int, float]]:
    """The outcome of the search, and epoch -> loss of the final fit."""
    final = read_final(run, read_history(run).search)
    fitted = final.search.trials[0].results if final else {}
    return outcome(run), {epoch: metrics["loss"] for epoch, metrics in fitted.items()}


def _count_results(run: Path) -> int:
    """How many the journals have, that of the final fit included."""
    journals = run / JOURNAL, run / FINAL / JOURNAL  # found by name: checkpoints come and go beside
    events = (event for path in journals if path.exists() for event in read_journal(path))
    return sum(event["event"] == "result" for event in events)


def _described(folder: Path, variant: Variant, sleep: float) -> dict[str, Any]:
    raises = {str(trial_seed(0, trial)): fate for trial, fate in variant.fates.items()}
    return {
        "name": "faulty",
        "trainable": "faulty_task:Faulty",
        "settings": {"sleep": sleep, "raises": raises, "orders": str(folder / "orders")},
        "search_space": {
            "hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 2.0, "default": 0.2}}
        },
        "search": {
            "algorithm": variant.algorithm, "metric": "loss", "mode": "min",
            "num_trials": TRIALS, "max_epochs": variant.max_epochs,
        },
        "resources": {
            "workers_per_trial": variant.ranks, "max_concurrent_trials": variant.slots,
            "max_failures": 20,
        },
        "storage": str(folder / "disk"),
        "cache": {"dir": str(folder / "cache")},
    }  # fmt: skip


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() or _mount(Path(folder), check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _mount(folder: Path, *, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    return subprocess.run(command, check=check, capture_output=True)
