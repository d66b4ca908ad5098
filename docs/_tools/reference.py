"""Write what is made from the program, so that the pages say what it says.

docs/cli.md is made from the Typer app, docs/json.md from the JSON schemas, and the list of modules in
docs/architecture.md from import-linter's layers and the modules' docstrings.

Usage: python docs/_tools/reference.py        (`make reference`; a test holds the pages against the program)
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo
from typer.utils import get_params_from_function

from peelcli.cli.main import app
from peelcli.files import write_text_atomically
from peelcli.report import schema

DOCS = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made by docs/_tools/reference.py; do not edit. -->"
START, END = "<!-- modules: start -->", "<!-- modules: end -->"
UNGROUPED = "Options"
CLI_INTRO = """# Commands

What `peel COMMAND --help` prints, for all commands. Flags can stand in a settings file as well: `--min-keep 0.2` is
`min-keep = 0.2` in `peel.toml`, or under `[tool.peel]` in `pyproject.toml`. Flags win, and what is of one run (`--out`,
`--plot`, `--output-format`; of a sweep `--bench`, `--jobs`, `--ray`) is given on the command line alone.
`peel --version` prints the version, `peel --install-completion` teaches the shell to complete commands and flags.
"""
JSON_INTRO = """# JSON

`--output-format json` prints one document on stdout and nothing else. Records of runs and reports have a JSON Schema
(2020-12), which `make schemas` writes from the code. Within a version keys are added, never renamed or taken away: read
what you know and pass over the rest. [Reports and the gate](report.md#json) says more of versions.
"""


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        write_text_atomically(DOCS / name, text)


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file in docs/."""
    return {"cli.md": cli(), "json.md": json_page(), "architecture.md": architecture()}


def cli() -> str:
    """Every command with its arguments and flags."""
    lines = [NOTE, CLI_INTRO]
    for command in app.registered_commands:
        assert command.callback is not None
        lines += _command(command.name or command.callback.__name__, command.callback)
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, function: Any) -> Iterator[str]:
    parameters = get_params_from_function(function).values()
    arguments = [p for p in parameters if isinstance(p.default, ArgumentInfo)]
    panels: dict[str, list[Any]] = {}
    for parameter in parameters:
        if isinstance(parameter.default, OptionInfo) and not parameter.default.hidden:
            panels.setdefault(parameter.default.rich_help_panel or UNGROUPED, []).append(parameter)
    yield from (f"## peel {name}", "")
    yield from (f"    peel {name} {' '.join(a.default.metavar or a.name.upper() for a in arguments)} [OPTIONS]", "")
    yield from (_paragraphs(inspect.getdoc(function) or ""), "")
    if arguments:
        yield from ("| argument | what it is |", "|---|---|")
        yield from (f"| `{a.default.metavar or a.name.upper()}` | {_cell(a.default.help)} |" for a in arguments)
        yield ""
    for panel, options in panels.items():
        yield from (f"**{panel}**", "", "| flag | takes | default | what it does |", "|---|---|---|---|")
        yield from (_option(option) for option in options)
        yield ""


def _option(parameter: Any) -> str:
    info = parameter.default
    name = parameter.name.replace("_", "-")
    switch = bool in (parameter.annotation, *get_args(parameter.annotation))
    flag = ", ".join(info.param_decls or ()) or (f"--{name}/--no-{name}" if switch else f"--{name}")
    takes = info.metavar or _takes(parameter.annotation)
    return f"| `{flag}` | {_code(takes)} | {_cell(_default(info))} | {_cell(info.help)} |"


def _takes(annotation: Any) -> str:
    """The choices, where there are some; nothing for a switch, which takes no value."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return "|".join(str(choice.value) for choice in kind)
    kinds = {annotation, *get_args(annotation)}
    return "" if bool in kinds else next((k.__name__.upper() for k in kinds if k in (int, float, str, Path)), "")


def _default(info: OptionInfo) -> str:
    """What holds where the flag is not given; most flags have it as text, so that a settings file can speak."""
    if isinstance(info.show_default, str):
        return info.show_default
    if info.default in (None, ...) or info.show_default is False or isinstance(info.default, bool):
        return ""
    return str(info.default.value if isinstance(info.default, Enum) else info.default)


def _paragraphs(doc: str) -> str:
    """A docstring as Markdown; the command after `Example:` as code."""
    text = re.sub(r"^Example: (.+)$", r"    \1", doc, flags=re.MULTILINE)
    return re.sub(r"(?<=: )(torchrun .+)$", r"`\1`", text, flags=re.MULTILINE)


def _cell(text: str | None) -> str:
    """Text that breaks no table and holds no HTML; rich's escape before a bracket is taken off."""
    return (text or "").replace("\\[", "[").replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    """Code in a table's cell; GitHub and MkDocs don't agree on how a bar in backticks is written."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`" if text else ""


def json_page() -> str:
    """The top-level keys of every document, and where its schema is."""
    lines = [NOTE, JSON_INTRO]
    told: set[str] = set()
    for name, whole in schema.schemas().items():
        lines += [
            f"## {whole['title']}",
            "",
            f"Schema: [{name}]({name})",
            "",
            "| key | type | what it is |",
            "|---|---|---|",
        ]
        lines += [_key(key, value, whole) for key, value in whole["properties"].items()]
        lines += ["", "| part | what it is | keys |", "|---|---|---|"]
        lines += [_part(part, value) for part, value in whole["$defs"].items() if part not in told]
        lines.append("")
        told |= whole["$defs"].keys()
    return "\n".join(lines).rstrip() + "\n"


def _key(key: str, value: dict[str, Any], whole: dict[str, Any]) -> str:
    required = "" if key in whole.get("required", ()) else ", may be absent"
    told = value.get("description") or _first_line(_part_of(value, whole))
    return f"| `{key}` | {_type(value)}{required} | {_cell(told)} |"


def _part_of(value: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The part that a key holds, alone, in a list or where it is not null; empty where it holds none."""
    for option in (value, value.get("items", {}), *value.get("anyOf", ())):
        if "$ref" in option:
            return dict(whole["$defs"][option["$ref"].rpartition("/")[2]])
    return {}


def _first_line(value: dict[str, Any]) -> str:
    return (value.get("description") or "").partition("\n")[0]


def _part(name: str, value: dict[str, Any]) -> str:
    return (
        f"| `{name}` | {_cell(_first_line(value))} | {', '.join(f'`{key}`' for key in value.get('properties', ()))} |"
    )


def _type(value: dict[str, Any]) -> str:
    """A type in words."""
    if "$ref" in value:
        return f"`{value['$ref'].rpartition('/')[2]}`"
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type(value['additionalProperties'])}"
    return str(value.get("type", "any"))


def architecture() -> str:
    """The page as it stands, with the list of modules made anew between its two marks."""
    before, start, rest = (DOCS / "architecture.md").read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError("docs/architecture.md has lost the marks around its list of modules")
    return "\n".join(
        [before + start, "", "| layer | module | what it is for |", "|---|---|---|", *_modules(), "", end + after]
    )


def _modules() -> Iterator[str]:
    """One row for each module or package of peelcli, from the top layer down."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    for number, layer in enumerate(layers, 1):
        for place, name in enumerate(re.split(r" [|:] ", layer)):
            yield f"| {'' if place else number} | `{name}` | {_cell(_docstring(name))} |"


def _docstring(name: str) -> str:
    """The first sentence or line of a module's docstring."""
    package = DOCS.parent / "peelcli" / name
    path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0].rstrip(":.")


if __name__ == "__main__":
    main()
