"""Exported programs and generated Python: they load in a process that knows neither the model nor peel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from peelcli import files
from peelcli.errors import CheckFailed, ExportError, UsageError
from peelcli.export import program, pyfile, targets
from tests.export.conftest import subject_of


def write(subject, plan, costs, *paths):
    artifacts, checks = targets.write(subject, plan, costs, paths)
    return artifacts, {check.name: check for check in checks}


def fresh(code, folder, *arguments):
    """Run code in a new process outside of this repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def tiny_vit():
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5
    )
    nn.init.normal_(vit.heads.head.weight)
    return subject_of(vit.eval(), torch.randn(1, 3, 16, 16))


COMPARE = """
import sys, torch
torch.manual_seed(1)
x = torch.randn(3, 3, 16, 16)
one = torch.export.load("slim.pt2").module()
from slim import load
two = load()
assert not two.training and not any(name.startswith("peelcli") for name in sys.modules)
same = sorted(two.state_dict()) == eval(sys.argv[1])
print(float((one(x) - two(x)).abs().max()), float(one(x).abs().max()) > 0, same)
"""


def test_both_load_in_a_fresh_process(plan, costs, tmp_path):
    subject = tiny_vit()
    artifacts, checks = write(subject, plan, costs, tmp_path / "slim.pt2", tmp_path / "slim.py")
    assert [(Path(a.path).name, a.kind) for a in artifacts] == [
        ("slim.pt2", "pt2"), ("slim.py", "py"), ("slim.safetensors", "weights")
    ]  # fmt: skip
    for name in ("pt2_reload", "py_reload"):
        assert checks[name].ok
        assert checks[name].value <= checks[name].tolerance
    assert checks["pt2_dynamic_batch"].ok
    assert checks["py_dynamic_batch"].ok
    names = sorted(subject.module.state_dict())
    difference, real, same = fresh(COMPARE, tmp_path, repr(names)).split()
    assert float(difference) < 1e-6
    assert (real, same) == ("True", "True")


def test_the_code_is_for_people(conv_net, plan, costs, tmp_path):
    write(conv_net, plan, costs, tmp_path / "slim.py")
    text = (tmp_path / "slim.py").read_text("utf-8")
    assert text.startswith("# Written by peel")
    assert "        self.depthwise = nn.Conv2d(8, 8, (3, 3), padding=(1, 1), groups=8)\n" in text
    assert "        x = self.norm(x)\n" in text
    assert "peelcli" not in text
    assert str(tmp_path) not in text
    assert max(map(len, text.splitlines())) <= 120
    compile(text, "slim.py", "exec")


def test_the_same_model_gives_the_same_weights_file(conv_net, plan, costs, tmp_path):
    found = set()
    for number in range(6):  # safetensors orders what is not sorted anew each time
        targets.write(conv_net, plan, costs, [tmp_path / f"{number}.py"])
        found.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(found) == 1


def test_a_program_holds_no_path_of_this_machine(conv_net, plan, costs, tmp_path):
    write(conv_net, plan, costs, tmp_path / "slim.pt2")
    with zipfile.ZipFile(tmp_path / "slim.pt2") as archive:
        graph = next(archive.read(name) for name in archive.namelist() if name.endswith("models/model.json"))
        extra = {name.rpartition("/")[2] for name in archive.namelist() if "/extra/" in name}
    assert __file__.encode() not in graph
    assert b"site-packages" not in graph
    assert "peel.macs" in extra


def test_tied_weights_are_stored_once_and_stay_tied(plan, costs, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.words.weight
            self.register_buffer("scale", torch.tensor([2.0, float("inf")]))

        def forward(self, x):
            return self.head(self.words(x)) * self.scale[0]

    write(subject_of(Tied().eval(), torch.randint(0, 11, (1, 5))), plan, costs, tmp_path / "slim.py")
    code = "from slim import load; m = load(); print(m.head.weight is m.words.weight, sorted(dict(m.named_buffers())))"
    assert fresh(code, tmp_path) == "True ['scale']\n"


def test_several_inputs_and_a_nest_of_outputs(two_inputs, plan, costs, tmp_path):
    _, checks = write(two_inputs, plan, costs, tmp_path / "slim.pt2", tmp_path / "slim.py")
    assert checks["pt2_reload"].ok
    assert checks["py_reload"].ok


def test_a_batch_that_is_baked_in_is_told(plan, costs, tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return self.a(x).reshape(12) if x.shape[0] == 2 else self.a(x).sum().reshape(1)

    _, checks = write(subject_of(Fixed(), torch.randn(2, 4)), plan, costs, tmp_path / "slim.py", tmp_path / "slim.pt2")
    assert checks["py_dynamic_batch"].ok is None
    assert "the batch is fixed to 2" in checks["py_dynamic_batch"].note


def test_what_can_not_be_exported_is_one_line(plan, costs, tmp_path):
    class Branch(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x

    for suffix in ("pt2", "py"):
        with pytest.raises(ExportError, match=r"^torch.export can't follow the model for slim") as caught:
            write(subject_of(Branch(3, 3), torch.randn(2, 3)), plan, costs, tmp_path / f"slim.{suffix}")
        assert "\n" not in caught.value.message
        assert ".safetensors" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_kept(conv_net, plan, costs, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "largest", lambda *_: 0.1)
    monkeypatch.setattr(pyfile, "largest", lambda *_: 0.1)
    for suffix in ("pt2", "py"):
        with pytest.raises(CheckFailed, match=r"loads again as another model \(difference 1.0e-01\)"):
            write(conv_net, plan, costs, tmp_path / f"slim.{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_nobodys_own_code_is_replaced(tmp_path):
    (tmp_path / "net.py").write_text("import torch\n")
    with pytest.raises(UsageError, match="peel did not write"):
        files.check_targets([tmp_path / "net.py"])
    (tmp_path / "net.py").write_text("# Written by peel 0.1.0.\n")
    files.check_targets([tmp_path / "net.py"])
    with pytest.raises(UsageError, match="would be written twice"):
        files.check_targets([tmp_path / "net.py", tmp_path / "net.safetensors"])
