"""An HTML page that needs nothing but itself: text, tables and plotly figures."""

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tuner.errors import UserError
from tuner.report.own_figures import NotDrawnError


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    heading: str
    body: str
    """HTML."""

    @property
    def anchor(self) -> str:
        """What a link to it ends with."""
        return self.heading.lower().replace(" ", "-")


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Write a page; the file appears whole.

    Raises:
        UserError: it cannot be written there.

    """
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(
            _PAGE.format(
                title=escape(title),
                subtitle=escape(f"{subtitle} · written {written}"),
                links="\n".join(
                    f'<a href="#{section.anchor}">{escape(section.heading)}</a>'
                    for section in sections
                ),
                sections="\n".join(
                    f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>'
                    f"\n{section.body}\n</section>"
                    for section in sections
                ),
                style=_own("page.css"),
                plotly=get_plotlyjs(),
                script=_own("page.js"),
            ),
            encoding="utf-8",
            errors="replace",  # half a character, which an experiment may have in a text
        )
        beside.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); give a file that can be: --output FILE"
        ) from error


def paragraph(text: str) -> str:
    """A note in small type."""
    return f'<p class="note">{escape(text)}</p>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and what they are, a line each."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in pairs
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "") -> str:
    """A table; numbers come as text. In one of the kind ``wide``, the last column alone wraps."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def commands(lines: Iterable[Sequence[str]]) -> str:
    """Commands to be copied into a shell."""
    return f"<pre>{escape(chr(10).join(shlex.join(line) for line in lines))}</pre>"


def fold(summary: str, text: str) -> str:
    """Text that is shown on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def drawn(make: Callable[[], str]) -> str:
    """A part with figures, or a line that says why there are none."""
    try:
        return make()
    except NotDrawnError as error:
        return paragraph(str(error))
    except Exception as error:  # noqa: BLE001 - Optuna's or plotly's; the page has more to show
        return paragraph(f"This could not be drawn: {type(error).__name__}: {error}")


def plot(figure: go.Figure, caption: str = "", *, height: int = 420, least_width: int = 0) -> str:
    """A figure; in a window that is narrower than ``least_width`` pixels it is scrolled."""
    figure.update_layout(template=None, height=height)
    data = figure.to_json().replace("<", "\\u003c")  # so that no value can end the script
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><div class="scroll"><div class="plot" style="min-width:{least_width}px"></div>'
        f'<script type="application/json">{data}</script></div>{text}</figure>'
    )


def grid(figures: Iterable[str], caption: str) -> str:
    """Small figures side by side, as many in a row as there is room for."""
    return f'<div class="grid">{"".join(figures)}</div>{paragraph(caption)}'


def _own(name: str) -> str:
    return (files("tuner.report") / name).read_text(encoding="utf-8")


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="note">{subtitle}</p>
<nav>
{links}
</nav>
</header>
<main>
<noscript><p>The figures need JavaScript.</p></noscript>
{sections}
</main>
<script>{plotly}</script>
<script>
{script}</script>
</body>
</html>
"""
