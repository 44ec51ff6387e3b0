"""``python -m tests.faults.bad_input --examples 2000``: spoilt experiment and space files.

Each is a built-in file with something changed: keys gone or renamed, values of another type, too
large, not finite, not printable, nested too deep, repeated by anchors, or bytes that are no text.
``validate`` must take it or refuse it, within seconds, in one line that names the key. The findings
are printed, each kind of them once; the exit code is 1 where there are any.
"""

import argparse
import contextlib
import copy
import io
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import yaml
from hypothesis import strategies as st

from search_spaces.builtin import SPACES, builtin_file
from tuner.commands.validate import validate
from tuner.errors import UserError
from tuner.experiment import builtin_experiments

SECONDS = 30.0
"""Of the clock, within which a file must be refused; it takes less than one, on an idle machine."""

LONGEST = 1000
"""Characters of a message that is still a line."""

Place = tuple[str | int, ...]


class Hangs(BaseException):
    """It takes too long. No Exception, which ``validate`` may catch."""


@dataclass(frozen=True)
class Spoilt:
    """A file that is to be refused, and where it is spoilt."""

    content: bytes
    keys: tuple[Place, ...] = ()
    is_space: bool = False
    trainable: str = "image_classification"
    """The one that the space is for."""

    def __repr__(self) -> str:
        """What is seen of it in a finding."""
        where = " and ".join(".".join(map(str, key)) for key in self.keys) or "the text"
        return f"<{'space' if self.is_space else 'experiment'} spoilt at {where}>"


EXPERIMENTS = {
    name: path.read_text(encoding="utf-8").replace("data: images", "data: digits")
    for name, path in builtin_experiments().items()
}
SPACE_FILES = {name: builtin_file(name).read_text(encoding="utf-8") for name in SPACES}
FULL = """
name: full
settings: {data: digits, image_size: 32}
search_space: {hyperparameters: {learning_rate: {type: float, lower: 0.001, upper: 0.1}}}
search: {algorithm: bohb, sampler: kde, metric: val_accuracy, mode: max, num_trials: 4,
  max_epochs: 3, reduction_factor: 3, seed: 0, initial: [{learning_rate: 0.01}], warm_start: []}
resources: {gpus_per_trial: 0, workers_per_trial: 1, cpus_per_worker: 1, max_concurrent_trials: 1,
  placement: pack, max_failures: 3, accelerator_type: null}
stop: {time_budget: 2h, target: 0.9, plateau_epochs: 2}
final: {epochs: 3, data: train+val}
cache: {dir: cache, max_gb: 1}
checkpoints: {max_gb: 1}
logging: {skip: [scalars], max_share: 0.1}
"""
"""Every key of an experiment."""

NASTY: list[Any] = [
    None, True, 0, -1, 10**400, 2**63, -(2**31), 1e308, float("nan"), float("inf"), -0.0,
    "", " ", "x" * 5000, "\x00", "\x1b[31mred", "\u202egpj", "\ud7ff", "é" * 40, "../../etc", "~",
    "/dev/zero", "no:such", "os:system", "os.path:join", "a:b:c", "1e-3", "%s{0}{x}", "s3://x/y",
    [], {}, [[]], [None], {"": None}, {None: None}, {1: 2}, {"a": {"b": {}}}, [1, "2", None],
    list(range(3000)), {"x" * 300: 1},
]  # fmt: skip
TEXTS: list[Callable[[str], bytes]] = [
    lambda text: text.encode("utf-16"),
    lambda text: text.encode() + b"\xff\xfe\x80",
    lambda text: b"\x00" + text.encode(),
    lambda text: text.encode() + b"\n" + b"a: " + b"[" * 5000,
    lambda text: text.encode() + b"\nsettings: " + b"{a: " * 300 + b"1" + b"}" * 300,
    lambda text: text.encode() + b"\n- 1",
    lambda text: text.encode() + b"\n\t: x",
    lambda text: text.encode() + b"\nsettings: !!python/object/apply:os.system [echo]",
    lambda text: text.encode() + b"\nsettings: !!int x",
    lambda text: text.encode() + b"\nsettings: 2001-99-99",
    lambda text: text.encode() + b"\nsettings: !!binary '*'",
    lambda text: text.encode() + b"\nsettings: &a {b: *a}",
    lambda text: text.encode() + b"\nsettings: {<<: 3}",
    lambda text: text.encode() + b"\n? [a, b]\n: 1",
    lambda text: text.encode() + b"\n? {a: b}\n: 1",
    lambda text: text.encode() + b"\nsettings: *nowhere",
    lambda text: text.encode() + b"\n--- {}\n",
    lambda text: text.encode() + _bomb(),
    lambda _: b"",
    lambda _: b"3",
    lambda _: b"# nothing",
    lambda text: b"%YAML 9.9\n---\n" + text.encode(),
    lambda text: text.encode()[: len(text) // 2],
]


def _bomb() -> bytes:
    """Few bytes that stand for 10^12 items."""
    lines = ["", "a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for depth in range(1, 12):
        items = ", ".join([f"*a{depth - 1}"] * 10)
        lines.append(f"a{depth}: &a{depth} [{items}]")
    lines += ["settings: {data: *a11}", "search: *a11"]
    return "\n".join(lines).encode()


@st.composite
def spoilt(draw: st.DrawFn) -> Spoilt:
    """A spoilt file."""
    is_space = draw(st.booleans())
    files = SPACE_FILES if is_space else EXPERIMENTS | {"full": FULL}
    name = draw(st.sampled_from(sorted(files)))
    text, trainable = files[name], "text" if name == "text" else "image"
    if draw(st.integers(0, 5)) == 0:
        return Spoilt(draw(_texts(text)), (), is_space, f"{trainable}_classification")
    document = copy.deepcopy(yaml.safe_load(text))
    keys: list[Place] = []
    for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
        if places := sorted(_places(document), key=str):
            keys.append(draw(st.sampled_from(places)))
            draw(_changes(document, keys[-1]))
    return Spoilt(_dumped(document), tuple(keys), is_space, f"{trainable}_classification")


@st.composite
def _texts(draw: st.DrawFn, text: str) -> bytes:
    if draw(st.booleans()):
        return draw(st.sampled_from(TEXTS))(text)
    content = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=6))
    return bytes(content)


@st.composite
def _changes(draw: st.DrawFn, document: Any, key: Place) -> None:
    """Change what lies at ``key`` in place."""
    *parents, last = key
    holder = document
    for part in parents:
        holder = holder[part]
    values = st.sampled_from(NASTY) | st.text(max_size=9) | st.integers() | st.floats()
    change = draw(st.sampled_from(("value", "value", "value", "delete", "rename", "nest", "wrap")))
    if change == "value":
        holder[last] = copy.deepcopy(draw(values))  # the next change may be inside of it
    elif change == "delete" or isinstance(holder, list):
        del holder[last]
    elif change == "rename":
        name = draw(st.text(min_size=1, max_size=12) | st.just(f"{last}s") | st.none())
        holder[name] = holder.pop(last)
    elif change == "wrap":
        holder[last] = [holder[last]]
    else:
        for _ in range(draw(st.sampled_from((1, 40)))):
            holder[last] = {"a": holder[last]}


def _places(document: Any) -> Iterator[Place]:
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in _places(value))


def _dumped(document: Any) -> bytes:
    try:
        text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
        return str(text).encode("utf-8", "surrogatepass")
    except ValueError:  # Python writes no integer of so many digits
        return b"{}"


def warm_up(folder: Path) -> None:
    """Import what ``validate`` does, which takes seconds."""
    (folder / "full.yaml").write_text(FULL, encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        validate(str(folder / "full.yaml"), None, [])


def finding(file: Spoilt, folder: Path) -> str | None:
    """What is wrong with the way in which ``file`` is refused; None: nothing."""
    path = folder / "spoilt.yaml"
    path.write_bytes(file.content)
    if file.is_space:
        path = folder / "experiment.yaml"
        values = {"name": "x", "search_space": "spoilt.yaml", "trainable": file.trainable}
        values["settings"] = {"data": "digits" if "image" in file.trainable else "docstrings"}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        with limited(), contextlib.redirect_stdout(io.StringIO()):
            validate(str(path), None, [])
    except UserError as error:
        return _fault_of(str(error), file)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "site-packages" not in frame.filename and "/tests/" not in frame.filename
        ]
        at = ours[-1] if ours else last
        return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error}"[:300]
    return None


def _fault_of(message: str, file: Spoilt) -> str | None:
    if "\n" in message or not message.isprintable():
        return f"not a line, or not printable: {message!r:.300}"
    if len(message) > LONGEST:
        return f"a message of {len(message)} characters: {message:.120}"
    names = [str(part) for key in file.keys for part in key if isinstance(part, str)]
    names += ["settings"] * ("trainable" in names)  # another one's then, which does not know them
    names += ["ranks"] * ("workers_per_trial" in names)  # so many do not go with other settings
    if "a key must be text" in message:  # null, where a name was
        return None
    if names and not any(re.search(rf"\b{re.escape(name)}\b", message) for name in names):
        return f"names none of {names}: {message:.200}"
    return None


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raise :class:`Hangs` in what takes longer, be it that it computes or waits."""

    def ring(*_: object) -> None:
        raise Hangs(f"it hangs for more than {seconds:g} s")

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # pytest's own limit, which has gone on
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left + began - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.bad_input", description=__doc__)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    findings: dict[str, tuple[Spoilt, str]] = {}
    refused = Counter[bool]()

    with tempfile.TemporaryDirectory(prefix="tuner-bad-input-") as name:
        warm_up(Path(name))

        @hypothesis.seed(asked.seed)
        @hypothesis.settings(
            max_examples=asked.examples, deadline=None, database=None,
            suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(spoilt())
        def look(file: Spoilt) -> None:
            found = finding(file, Path(name))
            refused[found is None] += 1
            if found:
                kind = re.sub(r"'.*|\d{4,}.*", "", found)
                if kind not in findings:
                    print(f"{file!r}: {found}", flush=True)
                findings.setdefault(kind, (file, found))

        look()
    print(f"{refused.total()} files, {refused[False]} handled wrong, {len(findings)} kinds of it")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
