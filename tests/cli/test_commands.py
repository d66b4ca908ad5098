"""The commands as users run them: real files in, real files out, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.cli.conftest import files_in, small_cnn

MORE = """
import torch
from torch import nn

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(500, 32)
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 7)

    def forward(self, batch, scale=1.0):
        h = self.table(batch["ids"]) * scale
        return self.down(torch.relu(self.up(h * batch["mask"][..., None])).mean(1))

def text(): return Text()
def example(): return {"batch": {"ids": torch.randint(0, 500, (2, 12)), "mask": torch.ones(2, 12)}}
"""


def run_onnx(path, *arrays):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})


def prune(run_peel, folder, *arguments):
    """Run `peel prune` and return its JSON document."""
    done = run_peel("prune", *arguments, "--output-format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_is_quick_because_it_loads_no_torch(peel_environment):
    code = (
        "import sys; from peelcli.cli import main; sys.argv = ['peel', 'prune', '--help']\n"
        "try: main.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'torch_pruning', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if 'torch' in heavy or 'onnx' in heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=peel_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--flops" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["prune", "--help"], ["plan", "-h"], ["apply", "-h"], ["inspect", "-h"]]
)
def test_every_command_explains_itself(run_peel, arguments):
    done = run_peel(*arguments)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version_and_completion(run_peel):
    import peelcli

    assert run_peel("--version").stdout.strip() == f"peel {peelcli.__version__}"
    shown = run_peel(
        "--show-completion", "bash", env={"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    assert shown.returncode == 0
    assert "peel" in shown.stdout


def test_the_main_job_by_file_and_by_json(models, run_peel):
    document = prune(
        run_peel, models, "model.pt", "--input", "1,3,32,32", "--flops", "50%", "--align", "1", "--out", "slim.onnx"
    )
    assert set(document) >= {
        "peel", "model", "before", "after", "budget", "used", "predicted", "groups", "checks", "outputs", "seconds"
    }  # fmt: skip
    assert set(document["before"]) >= {"macs", "params", "thop_macs"}
    assert document["after"]["onnx_bytes"] == (models / "slim.onnx").stat().st_size
    assert document["budget"] == {"macs": document["before"]["macs"] // 2, "params": None} | {
        k: v for k, v in document["budget"].items() if k not in ("macs", "params")
    }
    assert document["after"]["macs"] <= document["budget"]["macs"]
    assert document["after"]["thop_macs"] <= document["before"]["thop_macs"] // 2
    assert document["predicted"]["macs"] == document["after"]["macs"]
    assert document["predicted"]["params"] == document["after"]["params"]
    assert document["used"]["params"] is None
    assert 0.9 < document["used"]["macs"] <= 1
    groups = {g["name"]: g for g in document["groups"]}
    assert groups["8"]["locked"] == "its channels are the model's output"
    assert groups["0"]["locked"] is None
    assert groups["0"]["width"] < groups["0"]["full"] == 16 or groups["3"]["width"] < groups["3"]["full"] == 32
    assert all(check["ok"] for check in document["checks"])
    assert {"masked_equivalence", "onnx_parity", "dynamic_batch", "predicted_macs"} <= {
        c["name"] for c in document["checks"]
    }
    assert document["outputs"] == ["slim.onnx"]
    assert sorted(files_in(models)) == ["model.pt", "net.py", "slim.onnx", "state.pt"]
    for batch in (1, 5):
        (out,) = run_onnx(models / "slim.onnx", np.zeros((batch, 3, 32, 32), np.float32))
        assert out.shape == (batch, 10)
    names = {entry.key for entry in onnx.load(models / "slim.onnx").metadata_props}
    assert {"peel.plan", "peel.macs"} <= names
    assert str(models).encode() not in (models / "slim.onnx").read_bytes()


def test_the_summary_for_people(models, run_peel):
    done = run_peel("prune", "model.pt", "--input", "1,3,32,32", "--flops", "50%", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 0
    for words in ("GFLOPs if a multiply-add counts twice", "MFLOPs if a multiply-add counts twice"):
        if words in done.stdout:
            break
    else:
        pytest.fail(done.stdout)
    for words in ("parameters", "thop", "masked_equivalence", "slim.onnx", "█"):
        assert words in done.stdout
    assert done.stderr == ""


def test_the_same_command_twice_makes_the_same_plan(models, run_peel):
    for name in ("one.json", "two.json"):
        done = run_peel(
            "plan", "model.pt", "--flops", "50%", "--score", "random", "--seed", "7", "--out", name, cwd=models
        )
        assert done.returncode == 0, done.stderr
    assert (models / "one.json").read_bytes() == (models / "two.json").read_bytes()
    done = run_peel(
        "plan", "model.pt", "--flops", "50%", "--score", "random", "--seed", "8", "--out", "three.json", cwd=models
    )
    assert (models / "three.json").read_bytes() != (models / "one.json").read_bytes()


def test_prune_is_plan_and_apply(models, run_peel):
    document = prune(run_peel, models, "model.pt", "--params", "60%", "--out", "whole.pt")
    assert run_peel("plan", "model.pt", "--params", "60%", cwd=models).returncode == 0
    assert sorted(files_in(models)) == ["model.pt", "net.py", "plan.json", "state.pt", "whole.pt"]
    done = run_peel("apply", "model.pt", "plan.json", "--out", "applied.pt", "--output-format", "json", cwd=models)
    assert done.returncode == 0, done.stderr
    applied = json.loads(done.stdout)
    assert [g["width"] for g in applied["groups"]] == [g["width"] for g in document["groups"]]
    one, two = (torch.load(models / n, weights_only=False) for n in ("whole.pt", "applied.pt"))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(one.eval()(x), two.eval()(x))


def test_a_plan_for_other_weights_or_another_architecture_is_refused(models, run_peel):
    assert run_peel("plan", "model.pt", "--flops", "50%", cwd=models).returncode == 0
    other = small_cnn()
    torch.nn.init.normal_(other[0].weight)
    torch.save(other, models / "other.pt")
    before = files_in(models)
    done = run_peel("apply", "other.pt", "plan.json", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 2
    assert "other weights" in done.stderr
    done = run_peel("apply", "net.py:make", "plan.json", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 2
    assert "another architecture" in done.stderr
    assert files_in(models) == before


def test_a_plan_for_another_input_is_refused(models, run_peel):
    assert run_peel("plan", "model.pt", "--input", "1,3,16,16", "--flops", "50%", cwd=models).returncode == 0
    before = files_in(models)
    done = run_peel("apply", "model.pt", "plan.json", "--input", "1,3,32,32", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 2
    assert "the plan was made for another input: 1x3x16x16, not 1x3x32x32" in done.stderr
    assert "leave --input away" in done.stderr
    assert files_in(models) == before
    done = run_peel("apply", "model.pt", "plan.json", "--input", "4,3,16,16", "--out", "slim.pt", cwd=models)
    assert done.returncode == 0, done.stderr  # costs are of one sample


def test_a_budget_that_is_met_already_is_no_error(models, run_peel):
    document = prune(run_peel, models, "model.pt", "--flops", "100G", "--params", "100%", "--out", "slim.onnx")
    assert document["after"]["macs"] == document["before"]["macs"]
    assert any("already meets the budget" in note for note in document["notes"])
    x = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    model = small_cnn().eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run_onnx(models / "slim.onnx", x)[0], wanted, rtol=1e-4, atol=1e-5)


def test_both_budgets_hold_together(models, run_peel):
    document = prune(run_peel, models, "model.pt", "--flops", "60%", "--params", "30%", "--align", "1")
    assert document["after"]["macs"] <= 0.6 * document["before"]["macs"]
    assert document["after"]["params"] <= 0.3 * document["before"]["params"]
    assert document["outputs"] == []


@pytest.mark.parametrize(("allocate", "score"), [("peel", "l1"), ("uniform", "random"), ("greedy", "fpgm")])
def test_every_allocator_with_a_score(models, run_peel, allocate, score):
    document = prune(
        run_peel, models, "model.pt", "--flops", "50%", "--allocate", allocate, "--score", score, "--align", "1"
    )
    assert document["settings"]["allocate"] == allocate
    assert document["settings"]["score"] == score
    assert document["used"]["macs"] > 0.94


def test_ignored_layers_keep_their_width(models, run_peel):
    document = prune(run_peel, models, "model.pt", "--flops", "70%", "--ignore", "3", "--align", "1")
    groups = {g["name"]: g for g in document["groups"]}
    assert groups["3"]["width"] == groups["3"]["full"] == 32
    assert groups["3"]["locked"] == "ignored by '3'"
    assert groups["0"]["width"] < 16


def test_state_dict_with_factory_and_weights_with_name(models, run_peel):
    arguments = ["state.pt", "--factory", "net.py:make", "--flops", "50%"]
    document = prune(run_peel, models, *arguments, "--input", "1,3,32,32", "--out", "slim.safetensors")
    assert sorted(document["outputs"]) == ["slim.plan.json", "slim.safetensors"]
    assert all(check["ok"] for check in document["checks"])


@pytest.mark.parametrize("kind", ["frozen", "half", "bfloat"])
def test_frozen_and_low_precision_models(models, run_peel, kind):
    arguments = [f"net.py:{kind}", "--input", "1,3,32,32", "--flops", "50%", "--out", "slim.onnx", "--out", "slim.pt"]
    document = prune(run_peel, models, *arguments)
    assert document["after"]["macs"] <= document["budget"]["macs"]
    assert not [check for check in document["checks"] if check["ok"] is False]
    code = (
        "import sys, torch; sys.path.insert(0, '.'); import net\n"
        "slim = torch.load('slim.pt', weights_only=False)\n"
        "print({p.dtype for p in slim.parameters()}, {p.requires_grad for p in slim.parameters()}, slim.training)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=models, capture_output=True, text=True)
    dtype = {"frozen": "torch.float32", "half": "torch.float16", "bfloat": "torch.bfloat16"}[kind]
    assert done.stdout.strip() == f"{{{dtype}}} {{{kind != 'frozen'}}} True", done.stderr


def test_several_inputs_by_repeated_flags(models, run_peel):
    arguments = ["net.py:two", "--input", "vector:1,8", "--input", "image:1,3,16,16", "--flops", "60%"]
    prune(run_peel, models, *arguments, "--out", "slim.onnx")
    image, vector = np.zeros((3, 3, 16, 16), np.float32), np.zeros((3, 8), np.float32)
    assert run_onnx(models / "slim.onnx", image, vector)[0].shape == (3, 4)


def test_inputs_by_name_in_a_dict_or_from_a_function(models, run_peel):
    (models / "more.py").write_text(MORE)
    how = ["--flops", "60%", "--align", "1"]
    asked = ["--input", "batch.ids=2x16:int64:<500", "--input", "scale=0.5", "--input", "batch.mask=2x16:int64"]
    prune(run_peel, models, "more.py:text", *asked, *how, "--out", "slim.onnx", "--out", "slim.safetensors")
    plan = json.loads((models / "slim.plan.json").read_text())
    assert plan["inputs"] == ["{ids=2x16:int64:<500, mask=2x16:int64:1..1}", "0.5"]
    ids, mask = np.zeros((3, 16), np.int64), np.ones((3, 16), np.int64)
    assert run_onnx(models / "slim.onnx", ids, mask)[0].shape == (3, 7)
    done = run_peel("plan", "more.py:text", "--inputs", "more.py:example", *how, cwd=models)
    assert done.returncode == 0, done.stderr
    assert "--inputs more.py:example gave the input" in done.stdout


def test_odd_paths_and_another_folder(models, run_peel):
    odd = models / "mein Modell ü 模型"
    odd.mkdir()
    (models / "model.pt").rename(odd / "das model.pt")
    prune(run_peel, "/", odd / "das model.pt", "--input", "1,3,16,16", "--flops", "50%", "--out", odd / "schmal é.onnx")
    assert sorted(p.name for p in odd.iterdir()) == ["das model.pt", "schmal é.onnx"]


def test_inspect_in_text_and_json(models, run_peel):
    before = files_in(models)
    done = run_peel("inspect", "model.pt", "--ignore", "0", "--output-format", "json", cwd=models)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    groups = {g["name"]: g for g in document["groups"]}
    assert groups["0"]["locked"] == "ignored by '0'"
    assert groups["3"]["full"] == 32
    assert groups["3"]["step"] == 8
    assert groups["3"]["floor"] == 8
    assert groups["3"]["layers"] == ["3", "4", "8"]
    assert 0 < groups["3"]["share"] <= 1
    text = run_peel("inspect", "model.pt", cwd=models)
    assert text.returncode == 0
    assert "its channels are the model's output" in text.stdout
    assert files_in(models) == before


def test_settings_from_a_file_and_flags_over_them(models, run_peel):
    (models / "pyproject.toml").write_text('[tool.peel]\nflops = "50%"\nalign = 1\nmin-keep = 0.2\nscore = "l1"\n')
    document = prune(run_peel, models, "model.pt", "--score", "l2")
    assert document["settings"]["score"] == "l2"
    assert document["settings"]["align"] == "1"
    assert document["settings"]["min_keep"] == "0.2"
    (models / "peel.toml").write_text('params = "70%"\n')
    document = prune(run_peel, models, "model.pt")
    assert document["budget"]["macs"] is None
    assert document["budget"]["params"] is not None


def test_stdout_holds_the_result_only(models, run_peel):
    (models / "noisy.py").write_text((models / "net.py").read_text() + "\nprint('hello from the factory')\n")
    done = run_peel(
        "plan", "noisy.py:make", "--flops", "50%", "--input", "1,3,32,32", "--output-format", "json", cwd=models
    )
    assert json.loads(done.stdout)["peel"]
    assert "hello from the factory" in done.stderr


def test_a_reader_that_goes_away(models, peel_environment):
    command = f"{sys.executable} -m peelcli inspect model.pt | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=models, env=peel_environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr
