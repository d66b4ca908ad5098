"""The action and the GitLab job, as a new user takes them: copied into an empty repository, their commands run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from onnx import helper

from tests.onnxcost.conftest import graph_file

CI = Path(__file__).resolve().parents[2] / "examples" / "ci"
ACTION = ".github/actions/peel-report/action.yml"


@pytest.fixture
def repository(tmp_path, peel_environment):
    """An empty repository with slim.onnx (2,100 multiply-adds) in it, and what runs a step's script there."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    node = helper.make_node("Gemm", ["x", "head.weight"], ["y"])
    graph_file(tmp_path / "slim.onnx", [node], {"x": ("batch", 70)}, {"head.weight": (70, 30)})
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env={**peel_environment, "PATH": path, **environment}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    return tmp_path, run


def test_the_action(repository):
    folder, run = repository
    shutil.copytree(CI / "peel-report", folder / ".github/actions/peel-report")
    action = yaml.safe_load((folder / ACTION).read_text("utf-8"))
    job = yaml.safe_load((CI / "gate.yml").read_text("utf-8"))["jobs"]["gate"]
    (use,) = [step for step in job["steps"] if step.get("uses", "").startswith("./")]
    assert f"{use['uses'].removeprefix('./')}/action.yml" == ACTION
    assert set(use["with"]) == set(action["inputs"])
    (step,) = action["runs"]["steps"]
    assert step["env"] == {"MODELS": "${{ inputs.models }}", "BOUNDS": "${{ inputs.bounds }}"}
    written = run("peel report slim.onnx --output-format json > baseline.json")
    assert written.returncode == 0, written.stderr
    given = {"MODELS": use["with"]["models"], "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}

    passed = run(step["run"], BOUNDS=use["with"]["bounds"], **given)
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout.startswith("::notice file=slim.onnx,")
    assert {"peel-report.html", "peel-report.json"} <= {path.name for path in folder.iterdir()}
    assert "bounds hold" in (folder / "summary.md").read_text("utf-8")

    failed = run(step["run"], BOUNDS="--max-flops 2k --max-params 2k", **given)
    assert failed.returncode == 1
    assert [line.partition(" ")[0] for line in failed.stdout.splitlines()] == ["::error", "::error"]
    assert json.loads((folder / "peel-report.json").read_text("utf-8"))["ok"] is False


def test_the_gitlab_job(repository):
    folder, run = repository
    job = yaml.safe_load((CI / "gitlab-ci.yml").read_text("utf-8"))["peel-gate"]
    (script,) = job["script"]
    passed = run(script)
    assert passed.returncode == 0, passed.stderr
    reports = job["artifacts"]["reports"]
    assert json.loads((folder / reports["codequality"]).read_text("utf-8")) == []
    failed = run(script.replace("--max-flops 1G", "--max-flops 2k"))
    assert failed.returncode == 1
    (finding,) = json.loads((folder / reports["codequality"]).read_text("utf-8"))
    assert finding["location"]["path"] == "slim.onnx"
    (suite,) = ElementTree.parse(folder / reports["junit"]).getroot()
    assert suite.get("failures") == "1"
    assert all((folder / path).is_file() for path in job["artifacts"]["paths"])
