"""What the Dockerfile promises, as far as no engine is needed to tell."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """The instructions in order, as (name, rest), continued lines joined and comments dropped."""
    lines = [x for x in DOCKERFILE.read_text().splitlines() if not x.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest) for name, rest in re.findall(r"^([A-Z]+) (.+)$", joined, re.MULTILINE)]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage; what stands before the first is left out."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def default(argument: str) -> str:
    [value] = [x.removeprefix(f"{argument}=") for n, x in instructions() if n == "ARG" and "=" in x
               and x.startswith(f"{argument}=")]  # fmt: skip
    return value


@pytest.mark.parametrize(
    ("argument", "package"), [("RAY", "ray"), ("TORCH", "torch"), ("TORCHVISION", "torchvision")]
)
def test_versions_are_those_that_the_project_allows(argument: str, package: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = {r.name: r for r in map(Requirement, project["dependencies"])}
    assert requirements[package].specifier.contains(default(argument))


def test_every_version_is_given_on_top_of_the_first_stage():
    names = [name for name, _ in instructions()]
    top = [rest for name, rest in instructions()[: names.index("FROM")] if name == "ARG"]
    assert [x.split("=")[0] for x in top] == ["BASE", "RAY", "TORCH", "TORCHVISION", "TORCH_INDEX"]
    below = [rest for name, rest in instructions()[names.index("FROM") :] if name == "ARG"]
    assert below == ["RAY TORCH TORCHVISION TORCH_INDEX"]  # taken over, not set a second time


def test_the_compiler_is_left_behind():
    builder, image = stages()
    assert " gcc " in dict(builder)["RUN"] or any(" gcc " in rest for _, rest in builder)
    assert not [rest for name, rest in image if name == "RUN" and re.search(r"gcc|-dev\b", rest)]
    assert [rest for name, rest in image if name == "COPY"] == [
        "--from=builder /opt/tuner /opt/tuner"
    ]


def test_the_user_at_run_time_is_not_root():
    users = [rest for name, rest in stages()[-1] if name == "USER"]
    # a number, since Kubernetes' runAsNonRoot cannot look a name up
    assert users == ["1000:1000"]


def test_programs_of_the_entrypoint_are_installed():
    last = stages()[-1]
    assert dict(last)["ENTRYPOINT"] == '["tini", "--"]'
    assert dict(last)["CMD"] == '["tuner", "run"]'
    installed = next(rest for name, rest in last if name == "RUN" and "apt-get install" in rest)
    for program in ("tini", "wget", "rsync", "openssh-client"):
        assert re.search(rf"\s{program}\s", installed), program


def test_what_is_copied_is_there_and_let_through():
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {p.rstrip("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert kept == packages | files
    assert all((ROOT / name).exists() for name in kept)
