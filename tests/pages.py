"""The documentation as tests see it: pages, their code blocks with the marks before them, tables, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER = "127.0.0.1:7860"
MARKS = ("not run", "file", "refused")
_MARK = re.compile(r"<!-- ([a-z ]+?)(?:: (.+))? -->")


@dataclass(frozen=True)
class Block:
    """A fenced code block. marks: what comments directly before it say; after: the block before it, where only text
    that is no heading stands between them."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]
    after: Block | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def is_run(self) -> bool:
        return "not run" not in self.marks

    @property
    def asks_the_server(self) -> bool:
        """Whether it needs a running WebUI."""
        return self.is_run and (SERVER in self.text or "webuiapi" in self.text)

    @property
    def is_output(self) -> bool:
        """Whether it is what the commands before it print, or the server's answer to them."""
        if not self.is_run or self.after is None or self.after.language != "sh" or not self.after.is_run:
            return False
        return self.language == "text" or (self.language == "json" and self.after.asks_the_server)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def blocks() -> tuple[Block, ...]:
    """The code blocks of all pages."""
    return tuple(block for page in pages() for block in blocks_of(page))


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page. Raises ValueError for a fence without a language, one that is not closed, a comment
    before a block that is no mark, and code by indentation, which no test would see."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    begun, marks, adjoins, previous = None, {}, False, ""
    for number, line in enumerate(lines, start=1):
        where = f"{page.name}:{number}"
        if begun is not None:
            if line == "```":
                start, language, kept = begun
                after = found[-1] if found and adjoins else None
                found.append(Block(page, start, language, "\n".join(lines[start:number - 1]) + "\n", kept, after))
                begun, marks, adjoins = None, {}, True
        elif line.startswith("```"):
            if not line[3:].isalpha():
                raise ValueError(f"{where}: a code block without a language: {line!r}")
            begun = (number, line[3:], marks)
        elif re.match(r"\s*(```|~~~)", line) or (line.startswith("    ") and not previous.strip()):
            raise ValueError(f"{where}: code that is not fenced at the margin: {line!r}")
        elif mark := _MARK.fullmatch(line):
            if mark[1] not in MARKS:
                raise ValueError(f"{where}: unknown mark {mark[1]!r}; accepted: {', '.join(MARKS)}")
            marks = {**marks, mark[1]: mark[2] or ""}
        elif line.strip():
            if marks:
                raise ValueError(f"{where}: a mark that no code block follows")
            adjoins = False
        previous = line
    if begun is not None or marks:
        raise ValueError(f"{page.name}: the last code block is not closed, or a mark has none")
    return found


def split_commands(text: str) -> list[list[str]]:
    """The commands of a shell block, each as its words; one may go over several lines, within quotes or by `\\`."""
    found, begun = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # within quotes
            continue
        found += [words] if words else []
        begun = ""
    if begun:
        raise ValueError(f"a quote is not closed: {begun}")
    return found


@dataclass(frozen=True)
class Table:
    """A table of a page, and the heading it stands under."""

    heading: str
    head: list[str]
    rows: list[list[str]]


def tables(page: Path) -> list[Table]:
    """The tables of a page."""
    found, heading, table = [], "", None
    for line in without_code(page).splitlines():
        if line.startswith("#"):
            heading, table = line.lstrip("# "), None
        elif line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if table is None:
                table = Table(heading, cells, [])
                found.append(table)
            elif set(line) - set("|-: "):
                table.rows.append(cells)
        else:
            table = None
    return found


def without_code(page: Path) -> str:
    """A page's text with its code blocks left out."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def code_spans(text: str) -> list[str]:
    """What stands in backticks in a line or a cell."""
    return re.findall(r"`([^`]+)`", text)


def headings(page: Path) -> list[str]:
    """The headings of a page, as they are written."""
    return re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """The name by which GitHub lets a heading be linked to."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return kept.replace(" ", "-")


def links(page: Path) -> list[tuple[str, bool]]:
    """(target, whether it is a picture) of each link of a page."""
    return [(target, bool(mark)) for mark, target in
            re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", without_code(page))]
