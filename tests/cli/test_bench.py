"""`peel bench` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.onnxfiles import convolutions


def test_bench_prints_json_and_loads_no_torch(tmp_path, peel_environment):
    for name, width in (("before", 64), ("after", 16)):
        convolutions(tmp_path / f"{name}.onnx", 3, width, width)
    program = (
        "import sys\nfrom peelcli.cli.main import app\n"
        "app(['bench', 'before.onnx', 'after.onnx', '--seconds', '0.1', '--output-format', 'json'],"
        " standalone_mode=False)\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=peel_environment, capture_output=True, text=True, check=True
    )
    (found,) = json.loads(done.stdout)["benches"]
    assert (found["provider"], found["threads"]) == ("cpu", 1)
    assert [file["path"] for file in found["files"]] == ["before.onnx", "after.onnx"]
    ratio = found["files"][1]["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_bench_says_in_text_that_nothing_was_won(run_peel, tmp_path):
    convolutions(tmp_path / "net.onnx", 3, 16, 16)
    done = run_peel("bench", "net.onnx", "net.onnx", "--seconds", "0.1", "--confidence", "0.99")
    assert done.returncode == 0
    assert "no speed-up" in done.stdout
    assert "of the multiply-adds" in done.stdout


def test_bench_refuses_what_is_no_onnx_file(run_peel, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    done = run_peel("bench", "model.pt")
    assert (done.returncode, done.stdout) == (2, "")
    assert "peel: model.pt is no .onnx file" in done.stderr
    assert "hint: write one: peel prune" in done.stderr
