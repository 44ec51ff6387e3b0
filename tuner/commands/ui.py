import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.errors import UserError
from tuner.history import open_run
from tuner.report.comparison import name_runs
from tuner.report.record import read_record
from tuner.search.journal import JOURNAL
from tuner.storage import fetched, local_folder
from tuner.text import shown

HOST = "127.0.0.1"
SECONDS_BETWEEN_LOOKS = 5.0
"""At most so often, the journals are looked at for something new."""


def ui(runs: list[str], port: int) -> None:
    """Serve optuna-dashboard with a study a run, until Ctrl-C.

    Raises:
        UserError: one is no run folder, the extra is not installed, or the port is taken.

    """
    dashboard = Dashboard(list({local_folder(run): run for run in runs}.values()))
    try:
        server = make_server(
            HOST, port, dashboard, server_class=_ThreadedServer, handler_class=_SilentHandler
        )
    except OSError as error:
        raise UserError(
            f"--port is {port}: it cannot be served ({error}); give another, or 0 for any that is "
            "free"
        ) from error
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    with server:
        print(f"optuna-dashboard: http://{HOST}:{server.server_port}/dashboard/", flush=True)
        print("It follows a run that is under way. End it with Ctrl-C.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


@dataclass
class Dashboard:
    """optuna-dashboard as a WSGI application, over studies of runs as they now are.

    It changes nothing in the runs: what is edited or deleted in it is forgotten.

    Raises:
        UserError: one of ``runs`` is no run folder, or the extra is not installed.

    """

    runs: Sequence[str]
    _application: Callable[..., Iterable[bytes]] = field(init=False)
    _written: list[int] = field(init=False, default_factory=list)
    """Bytes of each journal that the studies are of."""
    _looked: float = field(init=False, default=0.0)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        for run in self.runs:
            open_run(run)
        self._refresh()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        with self._lock:
            if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
                self._refresh()
        return self._application(environ, start_response)

    def _refresh(self) -> None:
        """Make the studies anew where a journal has grown; they come in the same order."""
        written = [(fetched(run) / JOURNAL).stat().st_size for run in self.runs]
        self._looked = time.monotonic()
        if written != self._written:
            self._application, self._written = _build(self.runs), written


def _build(runs: Sequence[str]) -> Callable[..., Iterable[bytes]]:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UserError(
            f"ui needs optuna-dashboard, which is not installed ({error}); install it with "
            "pip install 'tuner[ui]'"
        ) from error
    from optuna.storages import InMemoryStorage

    from tuner.report.study import add_study

    storage = InMemoryStorage()
    records = [read_record(run) for run in runs]
    for record, name in zip(records, name_runs(records), strict=True):
        try:
            add_study(record, storage, name)
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{shown(record.history.folder)}: its trials do not fit its search_space "
                f"({type(error).__name__}: {error}); it was damaged from outside"
            ) from error
    application: Callable[..., Iterable[bytes]] = wsgi(storage)
    return application


class _ThreadedServer(ThreadingMixIn, WSGIServer):
    """A browser asks for several things at once, and may keep a connection open."""

    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Not a line a request."""
