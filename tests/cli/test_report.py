"""`peel report` as users and CI jobs run it: exit codes, files, settings, pipes, terminals that speak no UTF-8."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper

from peelcli.cli import console, main, repeat
from tests.onnxcost.conftest import graph_file

BOUNDS = ("--max-flops", "1k", "--max-params", "1k", "--max-size", "1MB")


@pytest.fixture
def folder(tmp_path):
    """wide.onnx: 2,100 multiply-adds and parameters; slim.onnx: 700."""
    for name, width in (("wide", 30), ("slim", 10)):
        node = helper.make_node("Gemm", ["x", "head.weight"], ["y"])
        graph_file(tmp_path / f"{name}.onnx", [node], {"x": ("batch", 70)}, {"head.weight": (70, width)})
    return tmp_path


@pytest.fixture
def report(folder, monkeypatch, capsys):
    """`peel report` in this process, which is quicker: (exit code, stdout, stderr)."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, cwd: Path = folder) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as stopped:
            console.run(lambda: main.app(["report", *arguments], standalone_mode=False))
        return (stopped.value.code, *capsys.readouterr())

    return run


def test_a_gate_passes_without_torch(folder, peel_environment):
    code = (
        "import sys; from peelcli.cli import main\n"
        f"sys.argv = ['peel', 'report', 'wide.onnx', 'slim.onnx', *{BOUNDS}]\n"
        "try: main.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "loaded = {'torch', 'onnxruntime', 'matplotlib', 'thop'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=peel_environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2.10 kMACs" in done.stdout
    assert done.stdout.count(" ok ") == 3


def test_every_violated_bound_is_listed(report):
    code, out, err = report("slim.onnx", "wide.onnx", *BOUNDS)
    assert code == 1
    assert err.splitlines() == [
        "peel: violated: --max-flops 1k: multiply-adds 2.10 k, at most 1.00 k",
        "peel: violated: --max-params 1k: parameters 2.10 k, at most 1.00 k",
    ]
    assert out.count("VIOLATED") == 2


def test_files_of_all_formats_and_a_baseline(folder, report):
    outs = [word for name in ("r.html", "r.json", "r.md", "r.xml", "r.txt") for word in ("--out", name)]
    code, out, err = report("slim.onnx", *BOUNDS, *outs)
    assert (code, err) == (0, "")
    assert "slim.onnx" in out
    assert json.loads((folder / "r.json").read_text("utf-8"))["models"][0]["macs"] == 700
    ElementTree.parse(folder / "r.xml")
    for name in ("r.html", "r.md", "r.txt"):
        assert "slim.onnx" in (folder / name).read_text("utf-8")
    same = report("slim.onnx", "--against", "r.json", "--output-format", "json", "--out", "again.json")
    assert same == (0, "", "")
    assert json.loads((folder / "again.json").read_text("utf-8"))["baseline"]["name"] == "slim.onnx"
    code, _, err = report("wide.onnx", "--against", "r.json", "--max-regress", "100%")
    assert code == 1
    assert "multiply-adds 2,100 against 700 (+200.00%), at most +100 %" in err


@pytest.mark.parametrize("arguments", [["r.json"], ["wide.onnx", "--against", "r.json"]])
def test_what_is_read_is_not_written_over(folder, report, arguments):
    assert report("slim.onnx", "--out", "r.json", "--output-format", "json")[0] == 0
    before = (folder / "r.json").read_bytes()
    code, _, err = report(*arguments, "--out", "r.json")
    assert (code, "the output r.json is the input" in err) == (2, True)
    assert (folder / "r.json").read_bytes() == before


def test_bounds_from_settings_files(folder, report):
    settings = folder / "pyproject.toml"
    settings.write_text('[tool.peel]\nflops = "50%"\n[tool.peel.report]\nmax-flops = "1k"\n', "utf-8")
    assert report("wide.onnx")[0] == 1
    assert report("slim.onnx")[0] == 0
    assert report("wide.onnx", "--max-flops", "3k")[0] == 0
    (folder / "peel.toml").write_text("[report]\nmax-flops = 500\nmax_flops = 900\n", "utf-8")
    code, _, err = report("slim.onnx")
    assert (code, "stands twice" in err) == (2, True)
    (folder / "peel.toml").write_text("[report]\nmax-flop = 500\n", "utf-8")
    code, _, err = report("slim.onnx")
    assert (code, "there is no bound 'max_flop'" in err) == (2, True)


def test_github_gets_annotations_and_a_summary(folder, report, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    (folder / "summary.md").write_text("before\n", "utf-8")
    code, out, _ = report("wide.onnx", *BOUNDS, "--output-format", "github")
    assert code == 1
    assert out.splitlines() == [
        "::error file=wide.onnx,title=--max-flops 1k::multiply-adds 2.10 k, at most 1.00 k",
        "::error file=wide.onnx,title=--max-params 1k::parameters 2.10 k, at most 1.00 k",
    ]
    assert (folder / "summary.md").read_text("utf-8").startswith("before\n### peel: 2 of 3 bounds violated")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "absent" / "summary.md"))
    code, _, err = report("wide.onnx", "--output-format", "github")
    assert (code, "can't write in" in err) == (2, True)


def test_a_latency_is_measured_and_held(folder, report):
    code, out, err = report("wide.onnx", "slim.onnx", "--max-latency", "10s", "--output-format", "json")
    assert code == 0, err
    first, last = json.loads(out)["models"]
    assert first["latency_ms"] is None
    assert 0 < last["latency_ms"] < 10_000
    assert report("slim.onnx", "--max-latency", "0.001us")[0] == 1
    code, out, _ = report("wide.onnx", "slim.onnx", "--max-latency", "0.001%", "--output-format", "json")
    assert code == 1
    assert all(model["latency_ms"] for model in json.loads(out)["models"])


def test_a_pipe_that_closes_early_does_not_open_the_gate(folder, peel_environment):
    command = (
        f"{sys.executable} -m peelcli report slim.onnx wide.onnx --max-flops 1k | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=peel_environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--output-format", "json")])
def test_a_terminal_that_speaks_ascii(folder, run_peel, flags):
    shutil.copy(folder / "slim.onnx", folder / "größe.onnx")
    done = run_peel(
        "report", "größe.onnx", *BOUNDS, *flags, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, fresh=True
    )
    assert done.returncode == 0, done.stderr
    assert "700" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.onnx"], "no such file"),
        (["absent.json"], "no such file"),
        (["broken.json"], "it is no JSON"),
        (["list.json"], "neither a record of a run nor a report"),
        (["plan.json"], "is a plan, not a record"),
        (["newer.json"], "version 9; this peel reads up to 1"),
        (["cut.onnx"], "damaged"),
        (["split.onnx"], "needs its data file split.data, which is not there"),
        (["open.onnx"], "leaves sizes of its input open: x is batch,length"),
        (["slim.onnx", "--max-flops", "50%"], "no original"),
        (["slim.onnx", "--max-flops", "1k", "--max-flops", "2k"], "--max-flops is given as 1k and as 2k"),
        (["slim.onnx", "--max-regress", "1%"], "needs something to compare with"),
        (["slim.onnx", "--min-agreement", "0.9"], "was not compared with its original"),
        (["slim.onnx", "--out", "report.pdf"], "unknown suffix .pdf"),
        (["slim.onnx", "--out", "absent/report.html"], "does not exist"),
        (["slim.onnx", "--input", "1,3"], "does not fit slim.onnx"),
        ([], "Missing argument"),
    ],
)
def test_bad_input(folder, report, arguments, says):
    (folder / "broken.json").write_text('{"peel_run": 1', "utf-8")
    (folder / "list.json").write_text("[1, 2]", "utf-8")
    (folder / "plan.json").write_text('{"peel_plan": 1}', "utf-8")
    (folder / "newer.json").write_text('{"peel_run": 9}', "utf-8")
    (folder / "cut.onnx").write_bytes((folder / "slim.onnx").read_bytes()[:-500])
    model = onnx.load(folder / "slim.onnx")
    onnx.save(model, folder / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    (folder / "split.data").unlink()
    relu = helper.make_node("Relu", ["x"], ["y"])
    graph_file(folder / "open.onnx", [relu], {"x": ("batch", "length")}, {"unused": np.zeros(1, np.float32)})
    before = sorted(path.name for path in folder.iterdir())
    code, out, err = report(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert [line.partition(":")[0] for line in err.splitlines()] == ["peel", "hint"]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_run_its_pictures_and_its_command(models, run_peel, report):
    arguments = ["model.pt", "--input", "1,3,32,32", "--flops", "50%", "--align", "1", "--out", "slim.onnx"]
    plots = ["--plot", "widths.svg", "--plot", "widths.png"]
    done = run_peel("prune", *arguments, *plots, "--output-format", "json", cwd=models)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["peel_run"] == 1
    assert record["command"] == "peel prune model.pt --flops 50% --input 1,3,32,32 --align 1 --out slim.onnx"
    assert sum(layer["macs"][1] for layer in record["layers"]) == record["after"]["macs"]
    assert all(group["backbone"] for group in record["groups"])
    assert ElementTree.parse(models / "widths.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (models / "widths.png").read_bytes().startswith(b"\x89PNG")
    (models / "run.json").write_text(done.stdout, "utf-8")
    code, told, _ = report("run.json", "slim.onnx", "--max-flops", "50%", "--output-format", "json", cwd=models)
    assert code == 0
    original, slim, file = json.loads(told)["models"]
    assert (slim["macs"], file["macs"]) == (record["after"]["macs"],) * 2
    assert original["macs"] == record["before"]["macs"]
    assert file["bytes"] == slim["bytes"] == (models / "slim.onnx").stat().st_size
    page = report("run.json", "--output-format", "html", cwd=models)[1]
    assert "peel prune model.pt --flops 50%" in page


def test_a_picture_that_could_not_be_drawn_is_refused_first(models, run_peel):
    done = run_peel("prune", "model.pt", "--flops", "50%", "--plot", "widths.pdf", cwd=models)
    assert done.returncode == 2
    assert "unknown suffix .pdf" in done.stderr


def test_a_model_of_torch(models, report):
    code, out, _ = report("model.pt", "--input", "1,3,32,32", "--output-format", "json", cwd=models)
    assert code == 0
    (model,) = json.loads(out)["models"]
    assert model["kind"] == "module"
    assert model["bytes"] == (models / "model.pt").stat().st_size
    assert model["thop_macs"] > model["macs"] == sum(layer["macs"] for layer in model["layers"])


def test_the_command_that_would_do_it_again():
    settings = {
        "flops": "1 G",
        "ignore": ["a.*", "b"],
        "mean": [0.5, 0.25],
        "trust": True,
        "min_keep": 0.2,
        "code": None,
    }
    told = repeat.command("prune", ["my model.pt"], settings, [Path("slim.onnx")])
    assert told == (
        "peel prune 'my model.pt' --flops '1 G' --ignore 'a.*' --ignore b --mean 0.5,0.25 --trust --min-keep 0.2 "
        "--out slim.onnx"
    )
