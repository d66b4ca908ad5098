"""The pages of docs/: what comes from the program is what it says now, links work, recipes can be followed."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TOOLS = DOCS / "_tools"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
REMOTE = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//|<link[^>]+href=\"(?:https?:)?//")
NET = """
from torch import nn

def build():
    body = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4608, 4))
"""


def test_what_is_made_from_the_program_is_what_it_says():
    for name, text in runpy.run_path(str(TOOLS / "reference.py"))["pages"]().items():
        assert (DOCS / name).read_text("utf-8") == text, "run `make reference`"


def test_the_reference_has_every_flag(run_peel):
    page = (DOCS / "cli.md").read_text("utf-8")
    told = page.partition("## peel sweep")[2]
    shown = run_peel("sweep", "--help").stdout
    flags = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    assert {"--flops", "--jobs", "--out"} <= flags
    assert {flag for flag in flags if flag not in told} == set()


def test_every_flag_says_what_it_takes():
    rows = re.findall(r"^\| `(--[^`]+)` \| (.*?) \|", (DOCS / "cli.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 100
    switches = {"--bench", "--diff"}  # without an opposite
    assert {flag for flag, takes in rows if not takes and "/--no-" not in flag} == switches


def test_the_picture_of_the_stages_is_the_one_that_the_script_draws():
    drawn = runpy.run_path(str(TOOLS / "pictures.py"))["stages"]()
    assert (DOCS / "pictures" / "stages.svg").read_text("utf-8") == drawn, "run `make reference`"


def test_architecture_names_every_module():
    page = (DOCS / "architecture.md").read_text("utf-8")
    modules = {
        path.stem for path in (ROOT / "peelcli").glob("*") if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    unnamed = {name for name in modules if not name.startswith("__") and f"| `{name}` |" not in page}
    assert unnamed == set()


def test_links_between_the_pages_and_the_repository():
    hook = runpy.run_path(str(TOOLS / "repository.py"))
    text = "[a](../examples/ci) `[b](c.md)` [d](method.md#scores) [e](https://x.y/z)"
    assert hook["targets"](text, "docs/report.md") == ["examples/ci/README.md", "docs/method.md"]
    assert hook["rewritten"]("[a](../examples/ci)", "docs/report.md") == "[a](examples/ci/README.md)"
    assert hook["rewritten"]("[a](../../README.md#install)", "docs/howto/ci.md") == "[a](../readme.md#install)"
    assert hook["rewritten"]("[a](docs/method.md#scores)", "CONTRIBUTING.md") == "[a](method.md#scores)"
    assert hook["rewritten"]("[a](../../docs/report.md)", "examples/ci/README.md") == "[a](../../report.md)"


def build(site: Path, configuration: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", configuration, "--site-dir", site]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120
    )


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    done = build(tmp_path / "site", ROOT / "mkdocs.yml")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pages = {path.relative_to(tmp_path / "site"): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert {Path("tutorial.html"), Path("howto/ci.html"), Path("examples/ci/index.html")} <= set(pages)
    assert {path: REMOTE.search(text)[0] for path, text in pages.items() if REMOTE.search(text)} == {}


@pytest.fixture
def copy(tmp_path):
    """The package where a test may write."""
    return Path(shutil.copytree(ROOT / "peelcli", tmp_path / "peelcli", ignore=shutil.ignore_patterns("__pycache__")))


def first_python(page: str) -> str:
    return PYTHON.findall((DOCS / "howto" / page).read_text("utf-8"))[0]


def after(line: str, more: str, source: Path) -> None:
    """Put a block of the page in before the first line of a file that is `line`."""
    text = source.read_text("utf-8")
    assert text.count(line) == 1
    source.write_text(text.replace(line, more + line), "utf-8")


def test_a_scorer_and_a_source_format_are_added_as_the_pages_say(copy, tmp_path, peel_environment):
    (copy / "scoring" / "peak.py").write_text(first_python("add-a-scorer.md"), "utf-8")

    page = (DOCS / "howto" / "add-a-source.md").read_text("utf-8")
    kind, sniffed, opened, _ = re.findall(r"(?<=\n\n)(?: {4}\S.*\n(?: {4}.*\n)*)", PYTHON.sub("", page))
    (copy / "sources" / "npz.py").write_text(first_python("add-a-source.md"), "utf-8")
    after('    ONNX = "ONNX file"\n', kind, copy / "sources" / "sniff.py")
    after('    raise SourceError(\n        f"{path} is a zip archive', sniffed, copy / "sources" / "sniff.py")
    after("    if kind is Kind.EXPORTED:\n", opened, copy / "sources" / "state.py")
    after("from peelcli.sources.sniff import Kind", "from peelcli.sources import npz\n", copy / "sources" / "state.py")

    (tmp_path / "net.py").write_text(NET, "utf-8")
    namespace: dict = {}
    exec(NET, namespace)
    weights = {name: value.numpy() for name, value in namespace["build"]().state_dict().items()}
    np.savez(tmp_path / "weights.npz", **weights)
    flags = ["--factory", "net.py:build", "--input", "1,3,16,16", "--flops", "50%", "--score", "peak"]
    environment = {**peel_environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{peel_environment['PYTHONPATH']}"}

    def plan(file: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "peelcli", "plan", file, *flags]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    done = plan("weights.npz")
    assert done.returncode == 0, done.stderr
    assert '"score": "peak"' in (tmp_path / "plan.json").read_text("utf-8")
