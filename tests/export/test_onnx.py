"""ONNX files: right, dynamic, without a trace of the machine that they were made on; or not there at all."""

from __future__ import annotations

import json
import warnings

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import peelcli
from peelcli import plans
from peelcli.errors import CheckFailed, ExportError
from peelcli.export import contents, targets
from peelcli.export import onnx as onnx_files
from tests.export.conftest import subject_of


def write(subject, plan, costs, path):
    """Write one ONNX file; its checks by name."""
    (artifact,), checks = targets.write(subject, plan, costs, [path])
    assert (artifact.path, artifact.kind, artifact.bytes) == (str(path), "onnx", path.stat().st_size)
    return {check.name: check for check in checks}


def shapes(values):
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_one_file_that_is_right_dynamic_and_tells_about_itself(conv_net, plan, costs, tmp_path):
    path = tmp_path / "ü slim.onnx"
    checks = write(conv_net, plan, costs, path)
    assert [file.name for file in tmp_path.iterdir()] == ["ü slim.onnx"]
    assert all(check.ok for check in checks.values())
    assert checks["onnx_parity"].value <= checks["onnx_parity"].tolerance == 1e-4
    assert checks["dynamic_batch"].note == "batch sizes 1, 2, 3"

    model = onnx.load(path)
    assert checks["onnx_checker"].note == f"opset {model.opset_import[0].version}"
    assert shapes(model.graph.input) == {"input": ["batch", 3, 8, 8]}
    assert shapes(model.graph.output) == {"output": ["batch", 5]}

    told = {entry.key: entry.value for entry in model.metadata_props}
    assert plans.from_json(told["peel.plan"]) == plan
    assert told["peel.version"] == peelcli.__version__
    assert json.loads(told["peel.budget"]) == {"macs": 1000, "thop_macs": 1100}
    assert (told["peel.macs"], told["peel.params"], told["peel.thop_macs"]) == ("990", "90", "1050")
    assert (told["peel.macs_before"], told["peel.params_before"]) == ("2000", "200")

    inputs = torch.randn(7, 3, 8, 8)
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"input": inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), conv_net.module.eval()(inputs))


def test_no_word_about_the_users_machine(conv_net, plan, costs, tmp_path):
    write(conv_net, plan, costs, tmp_path / "slim.onnx")
    content = (tmp_path / "slim.onnx").read_bytes()
    for word in (b"stack_trace", b"site-packages", b".py", str(tmp_path).encode(), b"ConvNet"):
        assert word not in content
    model = onnx.load(tmp_path / "slim.onnx")
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_same_model_gives_the_same_bytes(conv_net, plan, costs, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        write(conv_net, plan, costs, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_module_is_as_it_was_and_nothing_is_printed(conv_net, plan, costs, tmp_path, capfd):
    module = conv_net.module.train()
    module.stem.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(conv_net, plan, costs, tmp_path / "slim.onnx")
    assert capfd.readouterr() == ("", "")
    assert all(part.training for part in module.modules())
    assert [p.requires_grad for p in module.parameters()] == [False, *[True] * 8]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_several_inputs_and_a_nest_of_outputs(two_inputs, plan, costs, tmp_path):
    checks = write(two_inputs, plan, costs, tmp_path / "slim.onnx")
    assert all(check.ok for check in checks.values())
    graph = onnx.load(tmp_path / "slim.onnx").graph
    assert shapes(graph.input) == {"image": ["batch", 3, 8, 8], "extra": ["batch", 6]}
    assert shapes(graph.output) == {name: ["batch", 4] for name in ("sum", "parts_0", "parts_1")}


class Words(nn.Module):
    """Integer inputs that must stay legal, in a dict, and a table without a batch."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.output = nn.Linear(4, 2)
        self.input = nn.Parameter(torch.ones(4))

    def forward(self, batch, offsets):
        x = self.table(batch["words"] + offsets) * batch["mask"].unsqueeze(-1) * self.input
        return self.output(x.sum(1))


def test_integers_stay_legal_and_names_do_not_clash(plan, costs, tmp_path):
    words = {"words": torch.tensor([[0, 9, 3]]), "mask": torch.tensor([[True, True, False]])}
    subject = subject_of(Words(), words, torch.tensor([0, 0, 6]))
    checks = write(subject, plan, costs, tmp_path / "slim.onnx")
    assert all(check.ok for check in checks.values())
    model = onnx.load(tmp_path / "slim.onnx")
    graph = model.graph
    assert shapes(graph.input) == {"batch_0": ["batch", 3], "batch_1": ["batch", 3], "offsets": [3]}
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    assert len(set(names)) == len(names)


class Remembers(nn.Module):
    """Keeps a tensor of the first call's batch size."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.ones = None

    def forward(self, x):
        if self.ones is None:
            self.ones = torch.ones_like(x)
        return self.linear(x * self.ones.mean())


def test_what_a_model_keeps_between_calls_stays_out_of_the_file_and_of_the_module(plan, costs, tmp_path):
    subject = subject_of(Remembers(), torch.randn(1, 6))
    checks = write(subject, plan, costs, tmp_path / "slim.onnx")
    assert checks["dynamic_batch"].ok
    assert subject.module.ones is None


# --- fixed batch ------------------------------------------------------------------------------------------------------


class Baked(nn.Module):
    """Its forward only takes the batch size that it was written for."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(x.reshape(4, 6))


class Loops(nn.Module):
    """Runs at any batch size, but its loop can only be exported for one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return torch.cat([self.linear(x[row : row + 1]) for row in range(x.shape[0])])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Baked(), "not available, the batch is fixed to 4: the model itself fails at another batch size: "),
        (Loops(), ""),
    ],
)
def test_without_a_dynamic_batch_the_example_decides_and_it_is_said(module, reason, plan, costs, tmp_path):
    checks = write(subject_of(module, torch.randn(4, 6)), plan, costs, tmp_path / "slim.onnx")
    assert checks["onnx_parity"].ok
    assert checks["dynamic_batch"].ok is None
    assert checks["dynamic_batch"].note.startswith(reason or "not available, the batch is fixed to 4: ")
    assert shapes(onnx.load(tmp_path / "slim.onnx").graph.input) == {"input": [4, 6]}


def test_a_model_without_a_batch(plan, costs, tmp_path):
    class Scalar(nn.Module):
        def forward(self, x):
            return x * 2 + 1

    checks = write(subject_of(Scalar(), torch.tensor(3.0)), plan, costs, tmp_path / "slim.onnx")
    assert checks["onnx_parity"].ok
    assert checks["dynamic_batch"].note == "not available, the shapes are fixed: no input has a batch dimension"


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "stored", "tolerance"),
    [
        (torch.float16, onnx.TensorProto.FLOAT16, 2e-2),
        (torch.bfloat16, onnx.TensorProto.FLOAT, 1e-4),
        (torch.float64, onnx.TensorProto.FLOAT, 1e-4),
    ],
)
def test_other_precisions_are_kept_where_onnxruntime_runs_them(
    conv_net, plan, costs, tmp_path, precision, stored, tolerance
):
    subject = subject_of(conv_net.module.to(precision), conv_net.inputs[0].to(precision))
    checks = write(subject, plan, costs, tmp_path / "slim.onnx")
    assert checks["onnx_parity"].ok
    assert checks["onnx_parity"].tolerance == tolerance
    model = onnx.load(tmp_path / "slim.onnx")
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {stored}
    name = str(precision).removeprefix("torch.")
    if stored == onnx.TensorProto.FLOAT:
        assert checks["onnx_precision"].ok is None
        assert checks["onnx_precision"].note.startswith(f"onnxruntime can't run {name} on a CPU")
    else:
        assert "onnx_precision" not in checks
    assert {p.dtype for p in subject.module.parameters()} == {precision}


def test_half_precision_is_written_in_float32_where_onnxruntime_refuses_it(
    conv_net, plan, costs, tmp_path, monkeypatch
):
    real = onnx_files._session

    def session(path):
        if onnx.load(path).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            raise onnx_files._Unfit("no kernel")
        return real(path)

    monkeypatch.setattr(onnx_files, "_session", session)
    subject = subject_of(conv_net.module.half(), conv_net.inputs[0].half())
    checks = write(subject, plan, costs, tmp_path / "slim.onnx")
    assert checks["onnx_parity"].ok
    assert checks["onnx_precision"].ok is None


# --- what must not be written -----------------------------------------------------------------------------------------


class Noisy:
    """A session whose outputs are a little off."""

    def __init__(self, session):
        self.session = session

    def get_inputs(self):
        return self.session.get_inputs()

    def run(self, names, feed):
        return [value * 1.001 for value in self.session.run(names, feed)]


def test_a_model_whose_outputs_are_random_is_told_so(plan, costs, tmp_path):
    class Sampling(nn.Conv2d):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    with pytest.raises(CheckFailed) as caught:
        targets.write(subject_of(Sampling(3, 4, 3)), plan, costs, [tmp_path / "slim.onnx"])
    assert "random, in eval mode too" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_above_tolerance_nothing_is_written(conv_net, plan, costs, tmp_path, monkeypatch):
    real = onnx_files._session
    monkeypatch.setattr(onnx_files, "_session", lambda path: Noisy(real(path)))
    (tmp_path / "slim.onnx").write_text("old")
    with pytest.raises(CheckFailed, match=r"differ by 1.0e-03 \(relative\), over 1e-04: slim.onnx is not written"):
        targets.write(conv_net, plan, costs, [tmp_path / "slim.pt", tmp_path / "slim.onnx"])
    assert [file.name for file in tmp_path.iterdir()] == ["slim.onnx"]
    assert (tmp_path / "slim.onnx").read_text() == "old"


def test_a_file_that_onnxruntime_does_not_load_is_not_written(conv_net, plan, costs, tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    with pytest.raises(
        CheckFailed, match=r"onnxruntime does not run slim.onnx: .*NOT_IMPLEMENTED; nothing was written"
    ):
        targets.write(conv_net, plan, costs, [tmp_path / "slim.onnx"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_checker_refuses_is_not_written(conv_net, plan, costs, tmp_path, monkeypatch):
    def strip_too_much(proto):
        del proto.graph.node[0]

    monkeypatch.setattr(contents, "_strip", strip_too_much)
    with pytest.raises(CheckFailed, match=r"onnx.checker refuses slim.onnx: "):
        targets.write(conv_net, plan, costs, [tmp_path / "slim.onnx"])
    assert list(tmp_path.iterdir()) == []


def test_zeros_prove_nothing(conv_net, plan, costs, tmp_path):
    for parameter in conv_net.module.parameters():
        nn.init.zeros_(parameter)
    checks = write(conv_net, plan, costs, tmp_path / "slim.onnx")
    assert checks["onnx_parity"].ok is None
    assert checks["onnx_parity"].note == "every output is zero, nothing to compare"


def test_a_model_that_can_not_be_exported_is_one_line(plan, costs, tmp_path, capfd):
    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"^the model can't be exported to ONNX: ") as caught:
        targets.write(subject_of(Decides(), torch.randn(2, 3)), plan, costs, [tmp_path / "slim.onnx"])
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 260
    assert ".safetensors" in caught.value.hint
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_more_than_two_gigabytes_are_refused_at_once(conv_net, plan, costs, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "LARGEST", 100)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it was exported"))
    with pytest.raises(ExportError, match="one ONNX file holds at most 2 GB") as caught:
        targets.write(conv_net, plan, costs, [tmp_path / "slim.onnx"])
    assert ".safetensors" in caught.value.hint


def test_missing_packages_are_named_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_files, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ExportError, match="needs no_such_package") as caught:
        targets.require([tmp_path / "slim.ONNX"])
    assert caught.value.hint == "pip install no_such_package"
    targets.require([tmp_path / "slim.pt"])


def test_ctrl_c_in_the_middle_leaves_nothing(conv_net, plan, costs, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.onnx, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        targets.write(conv_net, plan, costs, [tmp_path / "slim.safetensors", tmp_path / "slim.onnx"])
    assert list(tmp_path.iterdir()) == []
