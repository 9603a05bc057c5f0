"""What the documentation lists is what there is: links, recipe fields, options, routes, messages, names of the code."""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import rich_click as click
from pages import ROOT, anchor, blocks, code_spans, headings, links, pages, tables, without_code

from sciart_ext.cli.program import program
from sciart_ext.cli.settings import SETTINGS
from sciart_ext.host.webui.axes import LORAS, axes
from sciart_ext.pipeline.settings import Pipeline
from sciart_ext.presets import PresetStore
from sciart_ext.recipe import Recipe

DOCS = ROOT / "docs"
PAGES = [*pages(), ROOT / "CHANGELOG.md"]
PATH = re.compile(r"(sciart_ext|tests|benchmarks|javascript|training|scripts|docs)/[\w./*-]*")
ELLIPSIS = "…"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path):
    for target, is_picture in links(page):
        if target.startswith("https://"):
            continue
        path, _, part = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), target
        assert not is_picture or there.suffix in (".png", ".webp"), target
        if part:
            assert part in map(anchor, headings(there)), f"{target}: no such heading"


def test_every_page_and_picture_is_reached_from_the_readme():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        found = {(page.parent / target.partition("#")[0]).resolve() for target, _ in links(page)
                 if not target.startswith(("https://", "#"))}
        new |= {path for path in found if path.suffix == ".md"} - reached
        reached |= found
    there = {path for path in DOCS.rglob("*") if path.is_file()} | {ROOT / "README.ko.md"}
    assert not {named(path) for path in there - reached}


def test_the_readmes_say_the_same():
    english, korean = ROOT / "README.md", ROOT / "README.ko.md"

    def code(page: Path) -> list[str]:
        return [re.sub(r"#.*", "", block.text) for block in blocks() if block.page == page]

    def other(target: str) -> str:
        """Of each language's own page and pictures the English one."""
        return {"README.ko.md": "README.md"}.get(target, target.replace("-korean.webp", ".webp"))

    def numbers(page: Path) -> list[str]:
        return sorted(re.findall(r"\d[\d.]*\d|\d", without_code(page)))

    assert code(english) == code(korean)
    assert [target for target, _ in links(korean)].count("README.md") == 1
    assert sorted(other(target) for target, _ in links(english)) == sorted(other(target) for target, _ in links(korean))
    assert len(headings(english)) == len(headings(korean))
    assert [len(table.rows) for table in tables(english)] == [len(table.rows) for table in tables(korean)]
    assert set(numbers(english)) == set(numbers(korean))


def schema() -> dict[str, object]:
    """Every field of the recipe by its path, with pydantic's description of it."""
    found = {}

    def walk(model: type, prefix: str) -> None:
        for name, field in model.__fields__.items():
            found[prefix + name] = field
            if hasattr(field.type_, "__fields__"):
                walk(field.type_, f"{prefix}{name}[]." if name == "loras" else f"{prefix}{name}.")

    walk(Recipe, "")
    return found


@lru_cache(maxsize=1)
def told_fields() -> dict[str, dict[str, str]]:
    """The rows of recipe.md's tables of fields, by field: cells by column."""
    rows = [dict(zip(table.head, row)) for table in tables(DOCS / "recipe.md") if table.head[0] == "field"
            for row in table.rows]
    return {code_spans(row["field"])[0]: row for row in rows}


def test_every_field_of_the_recipe_is_told_and_no_other():
    assert set(told_fields()) == set(schema())


def test_the_defaults_that_are_told_are_those():
    with_default = {name: row["default"] for name, row in told_fields().items() if "default" in row}
    assert len(with_default) > 20
    for name, told in with_default.items():
        field = schema()[name]
        default = field.default if field.default_factory is None else field.default_factory()
        if name == "composition.order":
            assert default is None
        elif "@" in told:
            assert told == f"`{', '.join(f'{share:g}@{progress:g}' for progress, share in default)}`", name
        elif isinstance(default, (bool, dict)):
            assert told == f"`{json.dumps(default)}`", name
        else:
            assert told.strip("`") == (default if isinstance(default, str) else f"{default:g}"), name


def test_every_value_that_is_accepted_is_told():
    for name, field in schema().items():
        kinds = [kind for kind in (field.outer_type_, *get_args(field.outer_type_)) if get_origin(kind) is Literal]
        for kind in kinds:
            told = code_spans(" ".join(told_fields()[re.sub(r"((hires|negative)\.)+curve", "curve", name)].values()))
            assert set(get_args(kind)) <= set(told), name


def test_every_field_of_a_pipeline_is_told_with_its_default():
    told = {code_spans(row[0])[0]: row[1].strip("`") for table in tables(DOCS / "pipeline.md")
            if table.head[0] == "field" for row in table.rows}
    fields = {f"{name}.{part}": field for name, stage in Pipeline.__fields__.items()
              for part, field in stage.type_.__fields__.items()}
    assert set(told) == set(fields)
    for name, field in fields.items():
        if name != "img2img.steps":
            assert told[name] == (field.default if isinstance(field.default, str) else f"{field.default:g}"
                                  if not isinstance(field.default, bool) else json.dumps(field.default)), name


def commands() -> dict[str, click.Command]:
    """The commands by name."""
    return dict(program.commands)


def options(command: click.Command) -> set[str]:
    return {option for one in command.params if isinstance(one, click.Option) for option in one.opts}


def told_options(heading: str) -> dict[str, str]:
    """Options by name, with their default as it is told, of the section of command-line.md with this heading."""
    return {option: row[table.head.index("default")] if "default" in table.head else ""
            for table in tables(DOCS / "command-line.md") if table.heading == heading and table.head[0] == "option"
            for row in table.rows for option in code_spans(row[0])}


def test_every_command_is_told_and_no_other():
    listed = next(table for table in tables(DOCS / "command-line.md") if table.head[0] == "command")
    assert [code_spans(row[0])[0] for row in listed.rows] == list(commands())
    assert {heading.strip("`") for heading in headings(DOCS / "command-line.md") if heading.startswith("`")} == set(
        commands())


@pytest.mark.parametrize("name", commands())
def test_every_option_is_told_and_no_other(name: str):
    told = set(told_options(f"`{name}`"))
    if name in ("generate", "influence", "plan", "combine", "bake"):
        told |= set(told_options("How a recipe is given"))
    if name == "influence":
        told |= set(told_options("`generate`")) - {"--count", "--batch", "--seeds"}
    assert told == options(commands()[name])


def test_every_option_stands_in_an_example():
    given = {word for block in blocks() if block.language == "sh" for word in re.findall(r"--[a-z-]+", block.text)}
    common = {"--quiet", "--json", "--config", "--orders", "--at-once", "--clip-skip", "--subsets", "--width",
              "--height", "--weights"}
    assert set().union(*map(options, commands().values())) - given <= common


@pytest.mark.parametrize("name", commands())
def test_the_defaults_of_options_that_are_told_are_those(name: str):
    given = commands()[name].make_context(name, [], resilient_parsing=True).params
    usual = {one.opts[0]: given[one.name] for one in commands()[name].params}
    for option, told in told_options(f"`{name}`").items():
        default = usual[option] if name not in ("generate", "influence") else SETTINGS.get(
            option.strip("-"), (None, usual[option]))[1]
        if re.fullmatch(r"-?\d[\d.]*", told) and default is not None:
            assert float(told) == float(default), option
        elif default and not isinstance(default, Path) and option not in ("--model", "--lora-dir"):
            assert told.strip("`") == str(default), option
        elif isinstance(default, Path) and option == "--out":
            assert told.strip("`") == str(default), option


def test_the_presets_that_are_told_are_those():
    table = next(table for table in tables(DOCS / "mix.md") if table.head[0] == "preset")
    told = set()
    for row in table.rows:
        first, *others = code_spans(row[0])
        told |= {first, *(first.rpartition("-")[0] + other if other.startswith("-") else other for other in others)}
    assert told == {name for name in PresetStore().names() if PresetStore().read(name).builtin}


def test_every_axis_of_the_plot_is_told_and_no_other():
    table = next(table for table in tables(DOCS / "webui.md") if table.head[0] == "axis")
    told = set()
    for row in table.rows:
        label = code_spans(row[0])[0].removeprefix("[SciArt] ")
        told |= {label.replace("1", str(k)) for k in range(1, LORAS + 1)} if f"(to {LORAS})" in row[0] else {label}
    assert told == {axis.label for axis in axes()}


def test_every_setting_is_told_and_no_other():
    text = (ROOT / "sciart_ext" / "host" / "a1111" / "settings.py").read_text(encoding="utf-8")
    titles = {node.args[1].value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
              and getattr(node.func, "id", "") == "option"}
    table = next(table for table in tables(DOCS / "webui.md") if table.head[0] == "setting")
    assert {row[0].strip("*") for row in table.rows} == titles and len(titles) > 3


def test_every_route_is_told_and_no_other():
    text = "".join((ROOT / "sciart_ext" / "host" / file).read_text(encoding="utf-8")
                   for file in ("webui/routes.py", "a1111/routes/api.py"))
    routes = {f"{method} /sciart/v1{path}" for method, path in
              re.findall(r'\("(GET|POST|DELETE)", "(/[a-z{}/]*)",', text)}
    table = next(table for table in tables(DOCS / "api.md") if table.head[0] == "route")
    assert {code_spans(row[0])[0] for row in table.rows} == routes and len(routes) >= 10


def test_every_route_stands_in_an_example():
    code = "\n".join(block.text for block in blocks() if block.page.name == "api.md")
    for table in tables(DOCS / "api.md"):
        for row in table.rows if table.head[0] == "route" else []:
            method, path = code_spans(row[0])[0].split()
            asked = [line for line in code.splitlines() if re.search(path.replace("{name}", "[a-z-]+") + "( |$)", line)]
            assert any(("-X DELETE" in line, "-d '" in line, "-d '" not in line and "-X" not in line)[
                ("DELETE", "POST", "GET").index(method)] for line in asked), f"{method} {path}"


@lru_cache(maxsize=1)
def messages() -> list[str]:
    """Every text of the code, with … for what is filled in."""
    files = [*(ROOT / "sciart_ext").rglob("*.py"), ROOT / "install.py"]
    return [text for path in files for text in _texts(ast.parse(path.read_text(encoding="utf-8")))]


def _texts(tree: ast.AST) -> list[str]:
    def text_of(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text_of, node.values))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return text_of(node.left) + text_of(node.right)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ELLIPSIS

    return [text_of(node) for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp))]


def test_every_message_of_the_troubleshooting_is_one_of_the_code():
    told = [span for table in tables(DOCS / "troubleshooting.md") for row in table.rows for span in code_spans(row[0])
            if table.head[0] == "message" or (" " in span and ELLIPSIS in span)]
    assert len(told) > 50
    for span in told:
        pattern = re.compile(".+".join(map(re.escape, span.strip(ELLIPSIS).split(ELLIPSIS))))
        assert any(pattern.search(message) for message in messages()), f"no such message: {span}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_are_there(page: Path):
    for span in code_spans(page.read_text(encoding="utf-8")):
        if PATH.fullmatch(span):
            assert list(ROOT.glob(span.rstrip("/"))), span


@pytest.mark.parametrize("name", ["inside.md", "extending.md"])
def test_names_of_the_code_are_those_of_the_code(name: str):
    files = [path for folder, pattern in (("sciart_ext", "*.py"), ("javascript", "*.js"), ("tests/host", "*.py"))
             for path in (ROOT / folder).rglob(pattern)]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in files)))
    spans = [span for span in code_spans(without_code(DOCS / name)) if not (ROOT / span).is_file()]
    told = {part for span in spans if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", span) for part in span.split(".")}
    assert len(told) > 10
    assert not told - words
