import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces import SpaceError, dump_space, load_space

SPACE = "hyperparameters: {x: {type: constant, value: 1}}"
WRITTEN = {"hyperparameters": {"x": {"type": "constant", "value": 1}}}


def message(source: Any, **options: Any):
    with pytest.raises(SpaceError) as caught:
        load_space(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module that can be imported as my_spaces."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_spaces", raising=False)

    def write(code: str):
        (tmp_path / "my_spaces.py").write_text(textwrap.dedent(code))

    return write


def test_importing_the_package_loads_neither_configspace_nor_numpy():
    code = (
        "import sys, search_spaces; search_spaces.SPACES, search_spaces.SpaceError;"
        "print(sorted({'ConfigSpace', 'numpy', 'pydantic', 'yaml'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_public_name_is_there():
    import search_spaces

    assert search_spaces.__all__ == sorted(search_spaces.__all__)
    assert all(hasattr(search_spaces, name) for name in search_spaces.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'samples'"):
        search_spaces.samples  # noqa: B018


def test_a_dict_a_path_and_a_name_are_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.yaml").write_text(SPACE)
    assert dump_space(load_space(WRITTEN)) == WRITTEN
    assert dump_space(load_space(tmp_path / "mine.yaml")) == WRITTEN
    assert dump_space(load_space("mine.yaml", folder=tmp_path)) == WRITTEN
    monkeypatch.chdir(tmp_path)
    assert dump_space(load_space("mine.yaml")) == WRITTEN
    assert "learning_rate" in load_space("quickstart")


def test_the_seed_is_that_of_the_space():
    first, again, other = (load_space("quickstart", seed=seed) for seed in (1, 1, 2))
    drawn = [space.sample_configuration() for space in (first, again, other)]
    assert dict(drawn[0]) == dict(drawn[1]) != dict(drawn[2])
    assert message("quickstart", seed=-1) == "seed is -1: it must lie between 0 and 2**32 - 1"


def test_a_function_is_a_source(module: Callable[[str], None]):
    module("""
        import ConfigSpace
        def make():
            space = ConfigSpace.ConfigurationSpace({"c": [True, False], "n": (1, 4)})
            space.add(ConfigSpace.EqualsCondition(space["n"], space["c"], True))
            return space
    """)
    assert dump_space(load_space("my_spaces:make")) == {
        "hyperparameters": {
            "c": {"type": "categorical", "choices": [True, False], "default": True},
            "n": {"type": "integer", "lower": 1, "upper": 4, "default": 2},
        },
        "conditions": [{"child": "n", "parent": "c", "equals": True}],
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def make(): return 3",
            "it returned a int: it must return a ConfigSpace.ConfigurationSpace",
        ),
        (
            "def make(): raise KeyError('lr')",
            "importing or calling it raised KeyError: 'lr'; mend it",
        ),
        ("import sys; sys.exit(2)", "importing or calling it raised SystemExit: 2; mend it"),
        (
            "1 +",
            (
                "importing or calling it raised SyntaxError: "
                "invalid syntax (my_spaces.py, line 1); mend it"
            ),
        ),
        ("def mak(): pass", "my_spaces has no function make; did you mean 'mak'?"),
    ],
)
def test_a_faulty_function_is_named(module: Callable[[str], None], code: str, expected: str):
    module(code)
    assert message("my_spaces:make") == f"my_spaces:make: {expected}"


def test_a_missing_module_is_named():
    assert message("no_such_module:make") == (
        "no_such_module:make: importing or calling it raised "
        "ModuleNotFoundError: No module named 'no_such_module'; mend it"
    )


def test_an_unknown_name_is_answered_with_a_near_one(tmp_path: Path):
    assert message("fine_tun", folder=tmp_path) == (
        f"fine_tun: no built-in search space has this name, and {tmp_path}/fine_tun "
        "does not exist; did you mean 'fine_tune'?"
    )


def test_a_device_without_an_end_is_not_read_to_it():
    with pytest.raises(SpaceError, match=r"^/dev/zero: .* it has more than 1,048,576 characters"):
        load_space("/dev/zero")


def test_a_folder_is_no_file(tmp_path: Path):
    assert message(tmp_path) == (
        f"{tmp_path}: {tmp_path} cannot be read, Is a directory; name a YAML file"
    )


@pytest.mark.parametrize("source", [3, None, ["quickstart"]])
def test_anything_else_is_no_source(source: Any):
    assert message(source) == (
        f"the search space is {source!r}: it must be a built-in name, a path, a mapping or "
        "package.module:function; the built-in names are fine_tune, linear_probe, quickstart, text"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the search space is None: it must be a mapping; write it as in {key: value}"),
        ("a: b: c", "line 1 is not valid YAML, mapping values are not allowed here; mend it"),
        (
            f"{SPACE}\nconditions: []\nconditions: []",
            "line 3 is not valid YAML, the key 'conditions' is there twice; mend it",
        ),
        (
            "hyperparameters: {x: {type: constant, value: 1, value: 2}}",
            "line 1 is not valid YAML, the key 'value' is there twice; mend it",
        ),
        ("? [a]\n: b", "line 1 is not valid YAML, found unhashable key; mend it"),
        (
            "!!python/name:os.system x",
            (
                "line 1 is not valid YAML, could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/name:os.system'; mend it"
            ),
        ),
        ("!!bool maybe", "the file is not valid YAML, 'maybe'; mend it"),
        ("[" * 3000, "the file is not valid YAML, maximum recursion depth exceeded; mend it"),
        (
            "hyperparameters: {x: {type: flaot}}",
            "hyperparameters.x.type is 'flaot': no such type; did you mean 'float'?",
        ),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, text: str, expected: str):
    (tmp_path / "mine.yaml").write_text(text)
    assert message("mine.yaml", folder=tmp_path) == f"mine.yaml: {expected}"


def test_numbers_without_a_point_are_numbers(tmp_path: Path):
    """YAML 1.1 reads 1e-4 as text."""
    text = "hyperparameters: {lr: {type: float, lower: 1e-4, upper: 1e-1, log: true}}"
    (tmp_path / "mine.yaml").write_text(text)
    lr = load_space("mine.yaml", folder=tmp_path)["lr"]
    assert (lr.lower, lr.upper) == (1e-4, 1e-1)
