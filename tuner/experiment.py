"""The experiment: one YAML file as one frozen model."""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Hashable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from search_spaces.reading import check_size, read_text
from trainables import DEFAULT_TRAINABLE
from tuner.errors import UserError
from tuner.search import SearchSettings
from tuner.section import Section
from tuner.storage import is_remote, join, local_folder, refuse_secrets


def _seconds(value: Any) -> Any:
    """``90``, ``"90s"``, ``"45m"``, ``"2h"`` or ``"1h30m"`` as seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", value)
    if not value or not match:
        raise ValueError("a duration looks like 90s, 45m, 2h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Resources(Section):
    """What one trial gets, and how many run at once."""

    gpus_per_trial: float = Field(
        0,
        ge=0,
        le=10_000,
        description="N: a rank on each of N GPUs; below 1: one, on a part of a GPU; 0: CPUs",
    )
    workers_per_trial: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="ranks of a trial when gpus_per_trial is 0 (else: one a GPU)",
    )
    cpus_per_worker: float = Field(1, gt=0, description="CPU cores, and torch threads, of a rank")
    max_concurrent_trials: int | None = Field(
        None, ge=1, le=100_000, description="slots; null: as many as the cluster holds"
    )
    placement: Literal["pack", "spread"] = Field(
        "pack",
        description="of a trial's ranks: on as few nodes as there is room on, or on as many; "
        "either way they may span nodes",
    )
    max_failures: int = Field(
        3,
        ge=0,
        description="times a trial is taken up again after a process was lost; where that befalls "
        "every slot so often, and no epoch is finished in between, the run ends, to be resumed",
    )
    accelerator_type: str | None = Field(None, description="a Ray accelerator type, such as A100")

    def bundles(self, *, one_process: bool = False) -> list[dict[str, float]]:
        """One resource bundle a rank, as Ray takes them; ``one_process``: one has all GPUs."""
        gpus = self.gpus_per_trial
        ranks = max(1, int(gpus)) if gpus else self.workers_per_trial or 1
        bundle: dict[str, float] = {"CPU": self.cpus_per_worker}
        if gpus:
            bundle["GPU"] = 1.0 if gpus >= 1 else gpus
        if gpus and one_process:
            ranks, bundle["GPU"] = 1, gpus
        if self.accelerator_type:
            bundle[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return [dict(bundle) for _ in range(ranks)]

    def model_post_init(self, _: Any) -> None:
        """Refuse what no placement can meet.

        Raises:
            ValueError: a fraction of GPUs above one.

        """
        if self.gpus_per_trial > 1 and self.gpus_per_trial != int(self.gpus_per_trial):
            raise ValueError(
                f"gpus_per_trial is {self.gpus_per_trial}: above 1 it must be a whole number"
            )
        if self.gpus_per_trial and self.workers_per_trial not in (
            None,
            max(1, int(self.gpus_per_trial)),
        ):
            raise ValueError(
                f"workers_per_trial is {self.workers_per_trial} and gpus_per_trial is "
                f"{self.gpus_per_trial:g}: with GPUs there is one rank a GPU; leave "
                "workers_per_trial out (--set resources.workers_per_trial=null)"
            )


class Stop(Section):
    """What ends a search, or a trial, early."""

    time_budget: Seconds | None = Field(
        None, description="of the whole search, in seconds or as 2h, 45m; epochs under way finish"
    )
    target: float | None = Field(None, description="the search ends once the metric is this good")
    plateau_epochs: int | None = Field(
        None, ge=1, description="a trial ends after so many epochs without a better result"
    )


class Final(Section):
    """The fit that follows the search: its best configuration, trained afresh."""

    epochs: int | None = Field(
        None, ge=1, description="of the fit; null: as many as the best result of the search took"
    )
    data: Literal["train", "train+val"] = Field(
        "train+val",
        description="what it is trained on; a Task of your own heeds it by context.final",
    )


class Cache(Section):
    """What is kept on each node for later trials and runs: data as they are trained on."""

    dir: str = Field("~/.cache/tuner", description="a folder on every node, shared by all runs")
    max_gb: float = Field(
        20, ge=0, description="the most it holds; the least recently used makes room; 0: no cache"
    )


class Checkpoints(Section):
    """What is kept of trials' states, on a disk or in the storage."""

    max_gb: float | None = Field(
        None,
        gt=0,
        description="the most that all checkpoints of the run take, in 10^9 bytes; those of trials "
        "that are over make room, the worst first; null: no limit",
    )

    @property
    def max_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.max_gb is None else int(self.max_gb * 1e9)


class Logging(Section):
    """What is written of each trial beside its metrics."""

    skip: list[str] = Field(
        default_factory=list,
        description="what TensorBoard does not get: scalars, hparams, and what the Task names in "
        "its logs, such as histograms",
    )
    max_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="the most of a trial's time that its first rank spends on logging: what takes "
        "long skips epochs; 0: nothing but scalars and hparams; 1: everything, every epoch",
    )
    wandb_project: str | None = Field(
        None, description="of Weights & Biases, where each trial becomes a run; null: none"
    )


class Experiment(Section):
    """What to tune, over what, how, and on what."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="the run's folder: letters, digits, dots, dashes",
    )
    trainable: str = Field(
        DEFAULT_TRAINABLE,
        max_length=500,
        description="a built-in name, or package.module:Class (a Task or a ray.tune.Trainable)",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="fixed settings of the trainable"
    )
    search_space: str | dict[str, Any] = Field(
        "fine_tune", description="a built-in name, a path, package.module:function, or inline"
    )
    search: SearchSettings = Field(default_factory=SearchSettings)
    resources: Resources = Field(default_factory=Resources)
    stop: Stop = Field(default_factory=Stop)
    storage: str = Field(
        "./runs",
        description="the folder that holds the run folders, or a URI such as s3://bucket/prefix",
    )
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    cache: Cache = Field(default_factory=Cache)
    logging: Logging = Field(default_factory=Logging)
    final: Final | None = Field(
        None,
        description="train the best configuration afresh once the search has ended, for best/; "
        "{}: as long as its best result took, on all data; null: best/ has the search's own model",
    )

    @field_validator("cache", mode="before")
    @classmethod
    def _has_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"it holds keys; for a folder: cache: {{dir: {value}}}")  # noqa: TRY004
        return value

    @field_validator("storage")
    @classmethod
    def _holds_no_secret(cls, value: str) -> str:
        refuse_secrets(value)  # an error of pydantic's would show them
        return value

    @property
    def location(self) -> str:
        """Where the run is kept: its folder, or a URI."""
        if is_remote(self.storage):
            return join(self.storage, self.name)
        return str(self.folder)

    @property
    def folder(self) -> Path:
        """The run's own folder on this machine; of one on object storage, its mirror."""
        return local_folder(self.storage) / self.name

    @property
    def job_metadata(self) -> dict[str, str]:
        """What Ray's dashboard says of the run's job."""
        return {
            "run": self.name,
            "algorithm": self.search.algorithm,
            "metric": f"{self.search.metric} ({self.search.mode})",
        }


def builtin_experiments() -> dict[str, Path]:
    """The ready files, by name."""
    folder = Path(str(files("tuner") / "experiments"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_experiment(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment file, or a built-in one by its name.

    Args:
        source: a path, or a name from :func:`builtin_experiments`.
        overrides: dotted path -> value, as ``search.num_trials`` -> ``8``.

    Raises:
        UserError: the file cannot be read, or what it says is not an experiment.

    """
    path = Path(source)
    if not path.suffix and str(source) in builtin_experiments():
        path = builtin_experiments()[str(source)]
    try:
        values = yaml.load(read_text(path), _UniqueKeys)  # noqa: S506 - a SafeLoader
        check_size(values)
    except OSError as error:
        names = ", ".join(builtin_experiments())
        raise UserError(
            f"experiment file {str(source)!r} cannot be read ({error.strerror}); give a path to a "
            f"YAML file, or one of: {names}"
        ) from error
    except Exception as error:  # yaml lets through what its constructors raise
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}, not a mapping of keys to values")
    return make_experiment(values, overrides or {}, where=str(path))


def make_experiment(
    values: dict[str, Any], overrides: Mapping[str, Any], where: str = "the experiment"
) -> Experiment:
    """An experiment from a nested dict and dotted overrides.

    Raises:
        UserError: names the first key that is wrong, the value got, and what must hold.

    """
    for dotted, value in overrides.items():
        _override(values, dotted, value)
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, is_section = ".".join(map(str, first["loc"])), first["type"] == "value_error"
        if is_section:  # whose message begins with the key
            key += "." + first["msg"].removeprefix("Value error, ").split()[0]
        given = any(
            f"{key}.".startswith(f"{dotted}.") or dotted.startswith(f"{key}.")
            for dotted in overrides
        )
        raise UserError(f"{'--set' if given else where}: {explain(error, Experiment)}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """``key.path=value`` with the value read as YAML.

    Raises:
        UserError: there is no ``=``, or the value is no YAML.

    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes key=value, such as search.num_trials=8; got {text!r}")
    try:
        return key.strip(), yaml.load(value, _UniqueKeys)  # noqa: S506 - a SafeLoader
    except Exception as error:  # yaml lets through what its constructors raise
        raise UserError(f"--set {key}: {value!r} is not valid YAML") from error


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first mistake that pydantic found, as one line: key, value got, what must hold."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1]) if model else []
        name = str(first["loc"][-1])
        near = difflib.get_close_matches(name, known, n=3) or known
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"unknown key {key}{hint}{more}"
    if first["type"] == "missing":
        return f"{key} is missing{more}"
    if first["type"] == "invalid_key":
        return f"{key} is a key, and a key must be text: quote it{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return f"{key}: {message}{more}"
    return f"{key} is {reprlib.repr(first['input'])}: {message}{more}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        models = [kind for kind in kinds if issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _override(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, key = dotted.split(".")
    for parent in parents:
        if values.get(parent) is None:  # not there, or the section that is off: final: null
            values[parent] = {}
        inner = values[parent]
        if not isinstance(inner, dict):
            raise UserError(f"--set {dotted}: {parent} is {inner!r}, which holds no keys")
        values = inner
    values[key] = value


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, and reads 1e-3 as the number it is."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, times in Counter(key for key in keys if isinstance(key, Hashable)).items():
            if times > 1:
                raise yaml.YAMLError(f"key {key!r} is given twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)
