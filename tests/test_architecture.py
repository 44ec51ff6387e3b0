"""Imports point down: tuner -> search_spaces, trainables; and only one file knows Tune's inside."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tuner", "search_spaces", "trainables")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["search_spaces", "trainables"])
def test_the_lower_packages_import_no_other_of_ours(package: str) -> None:
    others = {name for name in PACKAGES if name != package}
    for path in files(package):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & others, f"{path} imports {tops & others}"


def test_a_task_knows_nothing_of_ray() -> None:
    names = ("distributed", "rank_group", "peer")
    ray_files = {ROOT / "trainables" / f"{name}.py" for name in names}
    for path in files("trainables"):
        if path not in ray_files:
            assert not any(name.split(".")[0] == "ray" for name in imports_of(path)), path


def test_the_search_knows_nothing_of_ray_but_its_adapters() -> None:
    for path in files("tuner/search"):
        if path.name != "tune_adapters.py":
            assert not any(name.split(".")[0] == "ray" for name in imports_of(path)), path


def test_only_the_adapters_name_tunes_internals() -> None:
    allowed = ROOT / "tuner" / "search" / "tune_adapters.py"
    for path in [p for package in PACKAGES for p in files(package)]:
        inside = {n for n in imports_of(path) if n.startswith(("ray.tune.", "ray.train."))}
        assert path == allowed or not inside, f"{path} imports {inside}"


def test_only_trainables_know_what_is_trained_and_how_the_ranks_share_it() -> None:
    words = r"""\b(images?|image_\w+|pictures?|photos?|backbones?|text_\w*class\w*|docstrings?
        |vocabular\w+|ddp|fsdp|data_parallel|pipeline)\b"""
    naming = re.compile(words, re.VERBOSE | re.IGNORECASE)
    skeleton = ROOT / "tuner" / "commands" / "skeleton"  # a Task, to begin with
    named = [
        f"{path}: {found[0]}"
        for path in [*files("tuner"), *files("search_spaces")]
        if skeleton not in path.parents and (found := naming.search(path.read_text()))
    ]
    assert not named


def test_there_are_no_import_cycles() -> None:
    edges = {}
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for package in PACKAGES
        for p in files(package)
    }
    for name, path in modules.items():
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        named = set()
        for node in top:
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif node.module:
                inside = {f"{node.module}.{a.name}" for a in node.names}
                named |= inside & set(modules) or {node.module}
        edges[name] = {target for target in named if target in modules and target != name}

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        stack = list(edges[start])
        while stack:
            here = stack.pop()
            if here not in seen:
                seen.add(here)
                stack += edges[here]
        return seen

    assert not [name for name in edges if name in reaches(name)]


@pytest.mark.parametrize("command", [["--help"], ["list"], ["run", "--help"]])
def test_light_commands_import_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, tuner.__main__ as m\n"
        f"sys.argv = ['tuner', *{command!r}]\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'ConfigSpace', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("HEAVY []"), done.stdout + done.stderr
