"""A data set that every Python brings along: the docstrings of its standard library."""

import ast
import hashlib
import json
import platform
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from trainables.cache import DiskCache

DOCSTRINGS = "docstrings"

TOPICS: dict[str, tuple[str, ...]] = {
    "asyncio": ("asyncio",),
    "concurrency": ("concurrent", "multiprocessing", "queue", "sched", "subprocess", "threading"),
    "data types": (
        *("_collections_abc", "abc", "bisect", "calendar", "collections", "copy", "dataclasses"),
        *("_pydatetime", "datetime", "enum", "graphlib", "heapq", "pprint", "reprlib", "types"),
        *("typing", "weakref", "zoneinfo"),
    ),
    "debugging": (
        *("bdb", "cProfile", "doctest", "pdb", "profile", "pstats", "pydoc", "timeit", "trace"),
        *("tracemalloc", "unittest"),
    ),
    "files": (
        *("_pyio", "bz2", "filecmp", "fileinput", "fnmatch", "genericpath", "glob", "gzip"),
        *("lzma", "ntpath", "os", "pathlib", "posixpath", "shutil", "tarfile", "tempfile"),
        *("zipfile",),
    ),
    "imports": ("importlib", "modulefinder", "pkgutil", "runpy", "zipimport"),
    "language": (
        *("ast", "code", "codeop", "compileall", "dis", "inspect", "pickletools", "pyclbr"),
        *("symtable", "tokenize", "traceback"),
    ),
    "logging": ("logging",),
    "mail": ("email", "imaplib", "mailbox", "mimetypes", "poplib", "quopri", "smtplib"),
    "markup": ("html", "xml"),
    "mathematics": ("_pydecimal", "colorsys", "fractions", "numbers", "random", "statistics"),
    "network": (
        *("ftplib", "http", "ipaddress", "selectors", "socket", "socketserver", "ssl", "urllib"),
        *("uuid", "webbrowser", "wsgiref", "xmlrpc"),
    ),
    "strings": ("codecs", "difflib", "encodings", "gettext", "locale", "re", "string", "textwrap"),
}
"""The classes, each with the modules and packages that are about it, much as the chapters of
Python's Library Reference have them. Those that a Python does not have are passed over."""

_FEWEST_WORDS = 4
_LAYOUT = 1  # raise it when other docstrings are read, or others dropped


def load_docstrings(cache: DiskCache | None) -> list[tuple[str, str]]:
    """Each docstring as (text, topic): the same ones for a version of Python, in the same order.

    They are read from the library's sources, which takes seconds, by the first process of a node.
    """
    if cache is None:
        return read_docstrings()
    name = f"docstrings-{digest()}"
    with cache.lock(name):
        folder = cache.get(name)
        if folder is not None:
            pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
            return [(text, topic) for text, topic in pairs]
        found = read_docstrings()
        stored = json.dumps(found).encode()
        if partial := cache.make(name, len(stored)):
            (partial / "pairs.json").write_bytes(stored)
            cache.keep(name)
    return found


def digest() -> str:
    """Of the Python whose docstrings they are, and of which are taken."""
    made = [_LAYOUT, TOPICS, platform.python_version(), str(_library())]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:24]


def read_docstrings() -> list[tuple[str, str]]:
    """Read them from the sources.

    Texts that are equal but for case, digits and punctuation are taken once, so that none is in
    training and in validation both; those that several topics have are no example of any.

    Raises:
        ValueError: there are no sources.

    """
    found: dict[str, tuple[str, str]] = {}
    topics: dict[str, set[str]] = {}
    for topic, modules in TOPICS.items():
        for module in modules:
            for text in docstrings(module):
                letters = re.sub(r"[\W\d_]+", "", text.lower())
                found.setdefault(letters, (text, topic))
                topics.setdefault(letters, set()).add(topic)
    if not found:
        raise ValueError(
            "data is 'docstrings', but the sources of this Python's library are not there: give a "
            ".csv of text,label"
        )
    return [pair for letters, pair in found.items() if len(topics[letters]) == 1]


def docstrings(module: str) -> Iterator[str]:
    """Of a module or all of a package: those of its modules, classes and functions."""
    root = _library()
    for path in [root / f"{module}.py", *sorted((root / module).rglob("*.py"))]:
        if not path.is_file() or {"test", "tests"} & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text.split()) >= _FEWEST_WORDS:
                    yield text


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))
