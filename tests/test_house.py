"""House rules that import-linter and ruff can't express; the contracts themselves are in pyproject.toml."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peelcli
from peelcli import errors

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "peelcli").rglob("*.py"))
EVERYTHING = [*PACKAGE, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
MOST_LINES = 400
# Spelled in two halves, so that this file does not offend against its own rule.
OPEN_ENDS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|raise NotImplemented" r"Error")
TRACER = "torch_pruning"


def name_of(node: ast.expr) -> str:
    """The dotted name of an expression, or "" where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def prints_and_exits(source: str) -> Iterator[str]:
    """Every call that writes to the terminal or ends the process."""
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node.func) in forbidden:
            yield f"line {node.lineno}: {name_of(node.func)}"
        if isinstance(node, ast.Raise) and node.exc and "SystemExit" in ast.dump(node.exc):
            yield f"line {node.lineno}: raise SystemExit"


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_only_cli_prints_or_exits(path):
    if path.is_relative_to(ROOT / "peelcli" / "cli"):
        return
    assert list(prints_and_exits(path.read_text("utf-8"))) == []


def test_a_print_or_an_exit_would_be_found():
    source = "import sys\ndef f(x):\n    print(x)\n    sys.exit(1)\n    raise SystemExit(2)\n"
    assert sorted(prints_and_exits(source)) == ["line 3: print", "line 4: sys.exit", "line 5: raise SystemExit"]


def test_one_file_names_the_tracer():
    naming = [relative(path) for path in PACKAGE if TRACER in path.read_text("utf-8")]
    assert naming == ["peelcli/graph/depgraph.py"]


def test_no_file_is_long():
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in EVERYTHING}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_nothing_is_left_open():
    found = [
        f"{relative(path)}: {match[0]}" for path in EVERYTHING if (match := OPEN_ENDS.search(path.read_text("utf-8")))
    ]
    assert found == []


def test_importing_the_package_loads_neither_torch_nor_pydantic():
    program = "import peelcli, sys; print(peelcli.__version__, {'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [peelcli.__version__, "set()"]


def test_a_command_loads_no_package_that_only_some_runs_need():
    heavy = {"torch_pruning", "timm", "torchvision", "transformers", "accelerate", "matplotlib"}
    program = f"import peelcli.pipeline, sys; print(sorted(set({sorted(heavy)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_python_api_is_the_pipeline():
    pipeline = importlib.import_module("peelcli.pipeline")
    own = {name for name in peelcli.__all__ if not hasattr(errors, name)} - {"__version__"}
    assert own == {"apply", "finetune", "inspect", "load", "plan", "prune"}
    for name in own:
        assert getattr(peelcli, name) is getattr(pipeline, name)


def test_every_error_can_be_caught_by_name():
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds - set(peelcli.__all__) == set()
    with pytest.raises(peelcli.PeelError) as caught:
        peelcli.prune(object(), None)
    assert (caught.value.exit_code, bool(caught.value.message)) == (2, True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prnue'"):
        _ = peelcli.prnue


def test_the_changelog_knows_this_version():
    assert f"## [{peelcli.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
