from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.experiment import make_experiment
from tuner.storage import is_remote, join, local_folder, split, uri_of
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


def test_a_run_on_object_storage_has_a_location_and_a_mirror() -> None:
    experiment = make_experiment({"name": "run", "storage": "s3://bucket/a?region=x"}, {})

    assert experiment.location == "s3://bucket/a/run?region=x"
    assert experiment.folder == local_folder(experiment.location)


def test_credentials_in_a_uri_are_refused() -> None:
    with pytest.raises(UserError, match=r"storage is .*: it is written into the run's folder, so"):
        make_experiment({"name": "run", "storage": "s3://key:secret@bucket/a"}, {})


@pytest.mark.parametrize("uri", ["nosuch://bucket/a", "sftp://host/a"])
def test_a_storage_that_nothing_installed_knows_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=rf"storage is '{uri}': .*; give a folder, or a URI that"):
        open_remote(uri)
