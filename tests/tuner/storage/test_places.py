from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.experiment import make_experiment
from tuner.history import read_history
from tuner.results import load_model
from tuner.storage import (
    fetch_model,
    hold,
    is_remote,
    join,
    local_folder,
    run_names,
    split,
    uri_of,
)
from tuner.storage.remote import open_remote

URIS = [
    "s3://bucket/a/run",
    "s3://bucket/run?region=eu-west-1&endpoint_override=10.0.0.1:9000&scheme=http",
    "gs://bucket/deep/er/run",
    "abfs://box@account.dfs.core.windows.net/run",
]


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_has_a_mirror_that_tells_it_again(uri: str) -> None:
    mirror = local_folder(uri)

    assert uri_of(mirror) == uri
    assert uri_of(mirror / "best") == join(uri, "best")
    assert mirror.name == "run"


@pytest.mark.parametrize("uri", URIS)
def test_split_undoes_join(uri: str) -> None:
    storage, name = split(uri)
    assert name == "run"
    assert join(storage, name) == uri
    assert split(join(uri, "best")) == (uri, "best")


def test_mirrors_of_different_storages_differ() -> None:
    assert len({local_folder(uri) for uri in URIS}) == len(URIS)


def test_a_uri_leads_out_of_no_folder() -> None:
    mirrors = local_folder("s3://bucket").parent.parent
    assert local_folder("s3://bucket/../../../etc/run").is_relative_to(mirrors)
    assert local_folder("s3://bucket/..%2F..%2Fetc/run").is_relative_to(mirrors)


@pytest.mark.parametrize("storage", ["{}/runs", "file://{}/runs", "local://{}/runs"])
def test_what_lies_on_this_machine_is_a_folder(storage: str, tmp_path: Path) -> None:
    storage = storage.format(tmp_path)
    experiment = make_experiment({"name": "run", "storage": storage}, {})

    assert not is_remote(storage)
    assert experiment.folder == tmp_path / "runs/run"
    assert experiment.location == str(tmp_path / "runs/run")
    assert uri_of(experiment.folder) is None
    assert fetch_model(f"{storage}/run") == tmp_path / "runs/run"


def test_a_run_on_object_storage_has_a_location_and_a_mirror() -> None:
    experiment = make_experiment({"name": "run", "storage": "s3://bucket/a?region=x"}, {})

    assert experiment.location == "s3://bucket/a/run?region=x"
    assert experiment.folder == local_folder(experiment.location)


WITH_SECRETS = [
    "s3://KEY:SECRET@bucket/a",
    "s3a://KEY@bucket/a",
    "s3://KEY:SEC/RET@bucket/a",
    "abfs://:SECRET@account.blob.core.windows.net/box",
    "sftp://KEY:SECRET@host/a",
]


@pytest.mark.parametrize("uri", WITH_SECRETS)
@pytest.mark.parametrize(
    "use",
    [
        lambda uri: make_experiment({"name": "run", "storage": uri}, {}),
        lambda uri: make_experiment({"name": "run"}, {"storage": uri}),
        open_remote,
        local_folder,
        hold,
        run_names,
        read_history,
        load_model,
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_shown(
    uri: str, use: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    match = (
        r"storage is '\w+://\*\*\*': it is written into the run's folder, so it must hold no cre"
    )
    with pytest.raises(UserError, match=match) as refused:
        use(uri)
    assert not any(part in str(refused.value) for part in ("KEY:", "KEY@", "SEC", "RET"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "uri", ["abfs://box@account.dfs.core.windows.net/a", "gs://anonymous@box/a", "hdfs://me@host/a"]
)
def test_a_name_before_an_at_is_no_secret(uri: str) -> None:
    assert make_experiment({"name": "run", "storage": uri}, {}).location == f"{uri}/run"


@pytest.mark.parametrize("uri", ["nosuch://bucket/a", "sftp://host/a"])
def test_a_storage_that_nothing_installed_knows_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=rf"storage is '{uri}': .*; give a folder, or a URI that"):
        open_remote(uri)
