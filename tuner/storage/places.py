"""Names: what is a folder, what a URI, and where the mirror of one lies on this machine."""

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tuner.errors import UserError

MIRRORS = Path("~/.cache/tuner/runs")
"""Where mirrors lie."""
_LOCAL = ("file", "local")


def is_remote(storage: str | Path) -> bool:
    """Whether ``storage`` is a URI of something else than a folder of this machine."""
    return "://" in str(storage) and urlsplit(str(storage)).scheme not in _LOCAL


def refuse_secrets(location: str | Path) -> None:
    """Have no URI with credentials in it go any further.

    What stands before an ``@`` may be a name (``hdfs://user@host``, ``abfs://box@account``); that
    of S3 is a key.

    Raises:
        UserError: it holds some; the message does not.

    """
    if not is_remote(location):
        return
    parts = urlsplit(str(location))
    of_s3 = parts.scheme in ("s3", "s3a")  # a secret with a slash in it ends what is split off
    if parts.password is not None or (of_s3 and any(mark in parts.netloc for mark in "@:")):
        raise UserError(
            f"storage is '{parts.scheme}://***': it is written into the run's folder, so it must "
            "hold no credentials; leave them to the environment (AWS_ACCESS_KEY_ID, ~/.aws or a "
            "role)"
        )


def join(storage: str, *names: str) -> str:
    """What ``names`` stand for below ``storage``, a folder or a URI."""
    base, mark, query = storage.partition("?") if is_remote(storage) else (storage, "", "")
    return "/".join([base.rstrip("/") or base, *names]) + mark + query


def split(location: str | Path) -> tuple[str, str]:
    """A run's storage, and its name there."""
    if not is_remote(location):
        folder = local_folder(location)
        return str(folder.parent), folder.name
    base, mark, query = str(location).partition("?")
    storage, _, name = base.rstrip("/").rpartition("/")
    return storage + mark + query, name


def local_folder(location: str | Path) -> Path:
    """The folder that ``location`` is, or its mirror's.

    Raises:
        UserError: it is a URI with credentials in it.

    """
    refuse_secrets(location)
    if not is_remote(location):
        scheme, mark, path = str(location).partition("://")
        return Path(path if mark and scheme in _LOCAL else location).expanduser().resolve()
    parts = urlsplit(str(location))
    scheme = parts.scheme + (f"?{parts.query}" if parts.query else "")
    names = [name for name in (parts.netloc, *parts.path.split("/")) if name not in ("", ".", "..")]
    return MIRRORS.expanduser().joinpath(*(quote(name, safe=" @+=") for name in (scheme, *names)))


def uri_of(path: Path) -> str | None:
    """What a file or folder of a mirror is a copy of; None: it lies in none."""
    mirrors = MIRRORS.expanduser()
    if not path.is_relative_to(mirrors) or len(path.relative_to(mirrors).parts) < 2:
        return None
    scheme, *names = map(unquote, path.relative_to(mirrors).parts)
    scheme, mark, query = scheme.partition("?")
    return f"{scheme}://{'/'.join(names)}{mark}{query}"
