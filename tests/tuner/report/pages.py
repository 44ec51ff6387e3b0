"""What a page says, as a reader or a browser finds it."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

SCRIPT = '<script type="application/json">'


class Page:
    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")

    def section(self, heading: str) -> str:
        (body,) = re.findall(
            rf"<section[^>]*><h2>{heading}</h2>(.*?)</section>", self.text, re.DOTALL
        )
        return body

    def facts(self, heading: str) -> dict[str, str]:
        rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', self.section(heading))
        return {unescape(name): unescape(value) for name, value in rows}

    def rows(self, heading: str) -> list[list[str]]:
        found = re.findall(r"<tr>(<td>.*?)</tr>", self.section(heading), re.DOTALL)
        return [[unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in found]

    def figures(self, heading: str) -> list[dict[str, Any]]:
        found = re.findall(rf"{SCRIPT}(.*?)</script>", self.section(heading), re.DOTALL)
        return [json.loads(figure) for figure in found]

    def traces(self, heading: str) -> dict[str, dict[str, Any]]:
        (figure,) = self.figures(heading)
        return {trace.get("name", ""): trace for trace in figure["data"]}

    def tags(self) -> list[tuple[str, dict[str, str | None]]]:
        parser = _Tags()
        parser.feed(self.text)
        return parser.found


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
