"""Experiment files: what is right, and one clear line for each thing that is wrong."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from search_spaces import SpaceError, load_space
from tuner.errors import UserError
from tuner.experiment import builtin_experiments, load_experiment, make_experiment, parse_override

MINIMAL = {"name": "x"}


def test_defaults_fill_in() -> None:
    experiment = make_experiment({"name": "x"}, {})
    assert experiment.trainable == "image_classification"
    assert experiment.search.algorithm == "bohb"
    assert experiment.resources.bundles() == [{"CPU": 1}]


def test_overrides_go_by_dotted_path_and_are_read_as_yaml() -> None:
    overrides = dict(map(parse_override, ["search.num_trials=8", "stop.time_budget=1h30m"]))
    experiment = make_experiment({"name": "x"}, overrides)
    assert experiment.search.num_trials == 8
    assert experiment.stop.time_budget == 5400
    assert parse_override("settings.lr=1e-3") == ("settings.lr", 1e-3)
    assert parse_override("a=[1, 2]") == ("a", [1, 2])


def test_a_section_that_is_off_is_switched_on_by_one_of_its_keys() -> None:
    assert make_experiment({"name": "x"}, {}).final is None
    on = make_experiment({"name": "x", "final": None}, {"final.epochs": 5}).final
    assert on is not None
    assert (on.epochs, on.data) == (5, "train+val")


@pytest.mark.parametrize("name", list(builtin_experiments()))
def test_the_ready_files_load_and_have_their_own_name(name: str) -> None:
    assert load_experiment(name).name == name


@pytest.mark.parametrize(
    ("resources", "bundles"),
    [
        ({"workers_per_trial": 2, "cpus_per_worker": 0.5}, [{"CPU": 0.5}] * 2),
        ({"gpus_per_trial": 2}, [{"CPU": 1, "GPU": 1.0}] * 2),
        ({"gpus_per_trial": 0.25}, [{"CPU": 1, "GPU": 0.25}]),
        (
            {"gpus_per_trial": 1, "accelerator_type": "A100"},
            [{"CPU": 1, "GPU": 1.0, "accelerator_type:A100": 0.001}],
        ),
    ],
)
def test_resources_become_one_bundle_a_rank(resources: dict, bundles: list) -> None:
    assert make_experiment({"name": "x", "resources": resources}, {}).resources.bundles() == bundles


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x"}, "name is missing (and 1 more)"),
        ({"name": "x", "serch": {}}, "unknown key serch; did you mean search?"),
        (
            {"name": "x", "search": {"num_trails": 3}},
            "unknown key search.num_trails; did you mean num_trials?",
        ),
        (
            {"name": "x", "search": {"num_trials": "many"}},
            "search.num_trials is 'many': input should be a valid integer, unable to parse string",
        ),
        (
            {"name": "x", "search": {"algorithm": "pbt"}},
            "search.algorithm is 'pbt': input should be 'grid', 'random', 'asha' or 'bohb'",
        ),
        (
            {"name": "x", "resources": {"gpus_per_trial": 1.5}},
            "resources: gpus_per_trial is 1.5: above 1 it must be a whole number",
        ),
        (
            {"name": "x", "stop": {"time_budget": "soon"}},
            "stop.time_budget is 'soon': a duration looks like 90s, 45m, 2h or 1h30m",
        ),
        (
            {"name": "x", "final": {"epoch": 3}},
            "unknown key final.epoch; did you mean epochs?",
        ),
        (
            {"name": "x", "final": {"data": "val"}},
            "final.data is 'val': input should be 'train' or 'train+val'",
        ),
        (
            {"name": "x", "search": {"num_trials": True}},
            "search.num_trials is True: it takes no true or false; give a number, null, or,",
        ),
        ({"name": "x", "final": False}, "final is False: it takes no true or false; give a"),
        ({"name": "../x"}, "name is '../x': string should match pattern"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(values: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_experiment(values, {})
    assert str(caught.value).startswith(f"the experiment: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\n", "key 'name' is given twice"),
        ("name: [x\n", "is not valid YAML"),
        ("- a\n- b\n", "holds list, not a mapping"),
    ],
)
def test_files_that_are_no_experiment(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_experiment(path)


def test_a_missing_file_names_the_built_in_ones() -> None:
    with pytest.raises(UserError, match=r"cannot be read .*quickstart"):
        load_experiment("nothing.yaml")


@pytest.mark.parametrize("dotted", ["serch.num_trials", "search.num_trails", "serch"])
def test_an_override_of_a_key_that_is_none_is_blamed_itself(dotted: str) -> None:
    with pytest.raises(UserError, match=r"^--set: unknown key .*did you mean"):
        make_experiment({"name": "x"}, {dotted: 1})


@pytest.mark.parametrize(
    ("dotted", "value"), [("resources.gpus_per_trial", 1.5), ("search.num_trials.x", 5)]
)
def test_an_override_that_cannot_be_is_blamed_itself(dotted: str, value: float) -> None:
    with pytest.raises(UserError, match=r"^--set: "):
        make_experiment({"name": "x"}, {dotted: value})


def test_an_override_is_not_blamed_for_what_the_file_has() -> None:
    values = {"name": "x", "resources": {"gpus_per_trial": 1.5}}
    with pytest.raises(UserError, match=r"^the experiment: resources: gpus_per_trial is 1\.5"):
        make_experiment(values, {"resources.max_failures": 1})


def test_an_override_through_a_value_that_holds_no_keys() -> None:
    with pytest.raises(UserError, match="name is 'x', which holds no keys"):
        make_experiment({"name": "x"}, {"name.first": 1})
    with pytest.raises(UserError, match="--set takes key=value"):
        parse_override("search.num_trials")


def test_a_cache_that_is_a_path_is_told_its_form() -> None:
    with pytest.raises(UserError, match=r"cache is 'some/where': it holds keys; .*dir: some/where"):
        make_experiment({"name": "x", "cache": "some/where"}, {})


def test_a_file_without_an_end_is_read_to_a_limit() -> None:
    with pytest.raises(UserError, match="/dev/zero is not valid YAML: it has more than 1,048,576"):
        load_experiment("/dev/zero")


@pytest.mark.parametrize("read", [load_experiment, load_space])
def test_aliases_that_stand_for_too_much_are_refused(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    names = "abcdefghij"
    lines = [f"{names[0]}: &{names[0]} [x, x, x, x, x, x, x, x, x]"]
    for before, name in pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    path = tmp_path / "bomb.yaml"
    for text in ("\n".join(lines), "name: &a [*a]"):
        path.write_text(text)
        with pytest.raises((UserError, SpaceError), match="aliases stand for too much"):
            read(path)


@pytest.mark.timeout(60)
def test_a_file_of_many_keys_is_read_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(50_000)))
    with pytest.raises(UserError, match=r"\(and 50000 more\)"):
        load_experiment(path)
