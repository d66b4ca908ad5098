"""Every example, and the blocks of README and tutorial, through the real command, each page in an empty folder.

A fenced bash or Python block after the comment `<!-- run -->` is run; the blocks of one page run in order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RUNNABLE = re.compile(r"<!-- run -->\n```(bash|python)\n(.*?)```", re.DOTALL)
NOT_RUN = re.compile(r"(?<!<!-- run -->\n)```(?:bash|python)\n(.*?)```", re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+")
TRANSCRIPT = re.compile(r"<!-- transcript -->\n```text\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"<!-- examples/python_api/five_lines.py -->\n```python\n(.*?)```", re.DOTALL)
ROUND_OFF = ("masked_equivalence", "onnx_parity", "ONNX file", "slim.onnx (")  # these differ between machines


@pytest.fixture
def shell(tmp_path, peel_environment):
    """Run a bash script in the test's folder, with `peel` and `python` of this environment on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(script: str, folder: Path = tmp_path, expect: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**peel_environment, "PATH": path, "COLUMNS": "100"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def example(tmp_path):
    """Copy one folder of examples/ to where a test may write."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(EXAMPLES / name, tmp_path / name))

    return copy


def save_small_model(path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()]
    torch.save(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), path)


def blocks(page: Path) -> str:
    """All commands of a page that are meant to be run, as one script for bash."""
    found = RUNNABLE.findall(page.read_text("utf-8"))
    assert found, f"{page} marks no block with <!-- run -->"
    return "\n".join(body if language == "bash" else f"python - <<'PYTHON'\n{body}PYTHON" for language, body in found)


def squeezed(text: str) -> list[str]:
    """Lines without what depends on a terminal's width."""
    return [" ".join(line.split()) for line in text.splitlines() if set(line) - set(" ─")]


def test_a_new_user_comes_from_the_readme_to_a_gate(shell, tmp_path):
    """From an empty folder by copy and paste: a pickle of the user's own class, slim.onnx, a gate in CI."""
    shell(blocks(ROOT / "README.md"))
    left = {path.name for path in tmp_path.iterdir()}
    assert {"slim.onnx", "slim.pt", "slim.safetensors", "slim.plan.json", "plan.json", "tuned.onnx"} <= left
    steps = yaml.safe_load((tmp_path / ".github/workflows/gate.yml").read_text("utf-8"))["jobs"]["gate"]["steps"]
    gate = steps[-1]["run"]
    assert shell(gate).stdout.startswith("::notice file=slim.onnx,")
    assert "::error" in shell(gate.replace("30M", "1M"), expect=1).stdout


def test_the_tutorial(shell, tmp_path):
    done = shell(blocks(ROOT / "docs" / "tutorial.md"))
    right = {name: float(share) for name, share in re.findall(r"(\w+)\.onnx: ([\d.]+)% of 1,000", done.stdout)}
    assert right["blind"] < 40 < 90 < right["slim"]
    assert right["tiny"] > 88
    assert re.search(r"MACs +2\.10 M +[\d.]+ k +6\.5 %", done.stdout), "the least that can be reached"
    assert {"report.html", "whole.onnx", "run.json"} <= {path.name for path in tmp_path.iterdir()}


def test_what_is_shown_is_run():
    """Blocks that no test runs are these: they install, run the tests, need several GPUs, or measure this machine."""
    for name, exceptions in {
        "README.md": ["make demo", "pip install", "peel prune model.pt --latency 50% --out slim.onnx"],
        "docs/tutorial.md": ["pip install mlxtend"],
    }.items():
        text = (ROOT / name).read_text("utf-8")
        shown = [*NOT_RUN.findall(PYTHON.sub("", text)), *INDENTED.findall(RUNNABLE.sub("", text))]
        assert len(shown) == len(exceptions), shown
        assert all(start in block for start, block in zip(exceptions, shown, strict=True))


def test_the_demo_and_its_transcript(shell, tmp_path):
    done = shell(f"bash '{EXAMPLES}/demo.sh'")
    assert {"model.pt", "slim.onnx"} <= {path.name for path in (tmp_path / "demo").iterdir()}
    assert "batch 4: scores (4, 1000)" in done.stdout
    shown = squeezed(done.stdout)
    (told,) = TRANSCRIPT.findall((ROOT / "README.md").read_text("utf-8"))
    missing = [
        line for line in squeezed(told) if line != "..." and not line.startswith(ROUND_OFF) and line not in shown
    ]
    assert missing == []


def test_the_readme_shows_the_five_lines():
    script = (EXAMPLES / "python_api" / "five_lines.py").read_text("utf-8")
    (told,) = PYTHON.findall((ROOT / "README.md").read_text("utf-8"))
    assert script.endswith("\n" + told)


def test_own_module(shell, example):
    folder = example("own_module")
    done = shell(blocks(folder / "README.md"), folder)
    as_cut, tuned = (
        float(figure) for figure in re.findall(r"([\d.]+)%", done.stdout.split("slim.pt: accuracy")[1])[:2]
    )
    assert tuned > max(as_cut, 90)
    assert "nothing was cut" in done.stdout
    assert {"slim.onnx", "slim.pt", "tuned.onnx"} <= {path.name for path in folder.iterdir()}


def test_state_dict(shell, example):
    folder = example("state_dict")
    done = shell(blocks(folder / "README.md"), folder)
    before, after = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) -> ([\d,]+) multiply-adds", done.stdout)[0])
    assert after <= before / 2
    assert "torch.Size([2, 10])" in done.stdout


def test_python_api(shell, example):
    folder = example("python_api")
    done = shell(blocks(folder / "README.md"), folder)
    assert "1,814,073,344 -> " in done.stdout
    assert {"slim.onnx", "plan.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("model", "budget", "code", "says"),
    [
        ("model.pt", "50%", 0, "checks held"),
        ("model.pt", "1T", 0, "checks held"),
        ("model.pt", "10", 1, "can reach is"),
        ("mode.pt", "50%", 2, "no such file"),
    ],
    ids=["within", "met already", "out of reach", "no model"],
)
def test_ci_step(shell, example, model, budget, code, says):
    folder = example("ci")
    save_small_model(folder / "model.pt")
    done = shell(f"GITHUB_STEP_SUMMARY=summary.md bash compress.sh {model} {budget} slim.onnx", folder, expect=code)
    assert (folder / "summary.md").exists() == (code == 0)
    assert says in done.stdout + done.stderr
    assert (folder / "slim.onnx").exists() == (code == 0)
    if code == 0:
        assert json.loads((folder / "peel-report.json").read_text("utf-8"))["outputs"] == ["slim.onnx"]


def test_the_workflow_runs_the_step_that_is_there():
    workflow = (EXAMPLES / "ci" / "github-actions.yml").read_text("utf-8")
    assert "run: bash compress.sh model.pt 1G slim.onnx" in workflow


def test_planning_benchmark(shell):
    done = shell(f"python '{EXAMPLES}/benchmarks/planning.py' --quick")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["tiny", "peel"], ["tiny", "loop"]]
    assert 95 < float(rows[2][5].rstrip(" %")) <= 100


def test_end_to_end_benchmark(shell):
    done = shell(f"python '{EXAMPLES}/benchmarks/end_to_end.py' --quick")
    assert "| peel " in done.stdout
    assert "| export " in done.stdout


def test_latency_benchmark(shell, tmp_path):
    done = shell(f"XDG_CACHE_HOME='{tmp_path}' python '{EXAMPLES}/benchmarks/latency.py' --quick --part aligned")
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| tiny")]
    ours, theirs = (float(cell.strip().rstrip("%")) for cell in row.split("|")[2:4])
    assert 40 < ours <= theirs <= 50


@pytest.mark.slow
def test_sweep_benchmark(shell):
    done = shell(f"python '{EXAMPLES}/benchmarks/sweep.py' --quick")
    assert "| tiny " in done.stdout


def test_nine_networks_goes_on_where_it_stopped(shell, tmp_path):
    command = f"python '{EXAMPLES}/benchmarks/nine.py' --only tiny --no-export --budget '--flops 50%' --align 1"
    first = shell(f"{command} --results rows.jsonl")
    assert "1 of 1 rows hold" in first.stdout
    assert len((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()) == 1
    again = shell(f"{command} --results rows.jsonl")
    assert again.stdout == first.stdout
    assert again.stderr == ""
