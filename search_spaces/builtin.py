from pathlib import Path

SPACES: dict[str, str] = {
    "fine_tune": "fine_tune.yaml",
    "linear_probe": "linear_probe.yaml",
    "quickstart": "quickstart.yaml",
    "text": "text.yaml",
}
"""Name -> YAML file of the spaces that come with the package."""


def builtin_file(name: str) -> Path:
    """Where the YAML file of a built-in space lies."""
    return Path(__file__).with_name(SPACES[name])
