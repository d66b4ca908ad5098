"""Graphs in the operators of older opsets: the same figures out of onnxruntime, or a refusal by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from torch import nn

import peelcli
from peelcli.config import GraphForm, pick
from peelcli.errors import ExportError
from peelcli.export import onnx as onnx_files
from peelcli.export import opsets
from peelcli.onnxcost.count import count
from peelcli.records import Subject

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "benchmarks"))

from zoo_models.entry import inputs_of, liven

from tests.zoo.test_small_zoo import MORE, SMALL

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
INT, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def one(kind, *constants, out=FLOAT, outputs=1, opset=18, **attributes):
    """A graph of one node, whose first input is X, with the others as initializers; None leaves one away."""
    names = ["" if value is None else f"c{place}" for place, value in enumerate(constants)]
    tensors = [numpy_helper.from_array(value, name) for value, name in zip(constants, names, strict=True) if name]
    made = [f"y{place}" for place in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], made, name="node", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, X.shape)],
        [helper.make_tensor_value_info(name, out, None) for name in made],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def figures(model, x=X):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


HALF = floats(0.5, 1.5, -1, 2, 3)
CASES = {
    "axes as an attribute": one("ReduceMean", ints(1, -1), keepdims=0),
    "no axes: all of them": one("ReduceMax"),
    "a sum": one("ReduceSum", ints(2)),
    "equal parts": one("Split", outputs=2, axis=2, num_outputs=2),
    "parts of given sizes": one("Split", ints(1, 4), outputs=2, axis=3),
    "borders of some dimensions": one("Pad", ints(1, 0, 2, 3), floats(7).reshape(()), ints(3, -3), mode="constant"),
    "borders of all": one("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
    "larger by a factor": one("Resize", None, floats(1, 1, 2, 2), mode="nearest"),
    "larger to a size": one("Resize", None, None, ints(2, 3, 7, 9), mode="linear", antialias=0),
    "entries put in": one("ScatterND", ints(1).reshape(1, 1), X[:1] * 2, reduction="none"),
    "mish": one("Mish"),
    "layer norm of the last dimension": one("LayerNormalization", HALF, HALF * 3, epsilon=1e-2),
    "layer norm of the last three, no bias": one("LayerNormalization", X[0], axis=1),
    "all sizes": one("Shape", out=INT),
    "sizes from the second on": one("Shape", out=INT, start=1),
    "sizes but the last": one("Shape", out=INT, start=-4, end=-1),
    "batch norm": one("BatchNormalization", *(floats(1, 2, 3) for _ in range(4)), training_mode=0),
    "hard swish": one("HardSwish"),
    "another shape": one("Reshape", ints(2, -1), allowzero=1),
    "a dimension of one": one("Unsqueeze", ints(0, -1)),
    "softmax over the last": one("Softmax"),
    "softmax over the last by its number": one("LogSoftmax", axis=3),
    "softmax over channels": one("Softmax", axis=1),
    "softmax over the batch, from behind": one("Softmax", axis=-4),
    "the largest": one("ArgMax", out=INT, axis=1, select_last_index=0),
    "entries of a batch": one("GatherND", ints(1, 0).reshape(2, 1), batch_dims=0),
    "not less": one("GreaterOrEqual", floats(0.1), out=BOOL),
    "not more": one("LessOrEqual", X[1], out=BOOL),
}  # fmt: skip


@pytest.mark.parametrize("opset", [17, 15, 13, 12, 11])
@pytest.mark.parametrize("name", CASES)
def test_every_rule_keeps_the_figures(name, opset):
    model = CASES[name]
    expected, lowered = figures(model), onnx.ModelProto.FromString(model.SerializeToString())
    for value, array in zip(lowered.graph.output, expected, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, array.shape))
    opsets.lower(lowered, opset)
    checker.check_model(lowered, full_check=True)
    assert lowered.opset_import[0].version == opset
    for found, right in zip(figures(lowered), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


def test_every_rule_has_a_case():
    """Of reductions, recurrent layers and the like one stands for all."""
    used = {model.graph.node[0].op_type for model in CASES.values()}
    alike = {kind for kind, _ in opsets.RULES if kind.startswith("Reduce")} | {"Hardmax", "ArgMin", "ScatterElements"}
    assert {kind for kind, _ in opsets.RULES} - used - alike == {"Squeeze", "LSTM", "GRU", "RNN", "Constant"}


def test_not_a_number_is_neither_more_nor_less():
    x = X.copy()
    x[0, 0, 0] = np.nan
    lowered = one("GreaterOrEqual", floats(0.1), out=BOOL)
    opsets.lower(lowered, 11)
    assert (figures(lowered, x)[0] == (x >= np.float32(0.1))).all()


def test_numbers_without_a_tensor_become_one():
    nodes = [
        helper.make_node("Constant", [], ["four"], value_float=4.0),
        helper.make_node("Constant", [], ["sizes"], value_ints=[6, -1]),
        helper.make_node("Mul", ["x", "four"], ["more"]),
        helper.make_node("Reshape", ["more", "sizes"], ["y0"]),
    ]
    model = one("Relu")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    opsets.lower(model, 11)
    np.testing.assert_allclose(figures(model)[0], (4 * X).reshape(6, -1))


def test_graphs_inside_nodes_are_lowered_with_the_constants_around_them():
    def branch(kind, name):
        made = helper.make_node(kind, ["x", "axes"], [name], name=f"reduce_{name}", keepdims=1)
        squeezed = helper.make_node("Squeeze", [name, "axes"], [f"{name}_s"], name=f"squeeze_{name}")
        return helper.make_graph([made, squeezed], name, [], [helper.make_tensor_value_info(f"{name}_s", FLOAT, None)])

    model = one("Identity")
    asked = helper.make_node("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0)
    above = helper.make_node("Greater", ["sum", "nought"], ["above"], name="above")
    either = helper.make_node(
        "If", ["above"], ["y0"], name="if",
        then_branch=branch("ReduceMax", "most"), else_branch=branch("ReduceMin", "least"),
    )  # fmt: skip
    del model.graph.node[:]
    model.graph.node.extend([asked, above, either])
    constants = {"axes": ints(1), "nought": floats(0).reshape(())}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    opsets.lower(model, 11)
    assert [tensor.name for tensor in model.graph.initializer] == ["nought"], "axes are attributes now"
    np.testing.assert_allclose(figures(model, abs(X))[0], abs(X).max(1))
    np.testing.assert_allclose(figures(model, -abs(X))[0], -abs(X).max(1))


@pytest.mark.parametrize(
    ("model", "opset", "said"),
    [
        (one("Gelu", opset=20), 17, "Gelu"),
        (one("Resize", None, floats(1, 1, 0.5, 0.5), mode="linear", antialias=1), 17, "Resize with antialias"),
        (one("ReduceL2", noop_with_empty_axes=1), 17, "ReduceL2 over no dimension"),
        (one("ScatterND", ints(1).reshape(1, 1), X[:1], reduction="max"), 15, "ScatterND with reduction"),
        (one("Reshape", ints(0, 5), allowzero=1), 13, "Reshape to a size of zero"),
    ],
)
def test_what_has_no_older_form_is_told(model, opset, said):
    with pytest.raises(opsets.NoOlderForm, match=f"^{re.escape(said)}$"):
        opsets.lower(model, opset)


def test_axes_that_are_computed_are_told():
    model = one("ReduceMean", ints(1))
    model.graph.node.insert(0, helper.make_node("Identity", ["c0"], ["axes"], name="i"))
    model.graph.node[1].input[1] = "axes"
    with pytest.raises(opsets.NoOlderForm, match=r"^ReduceMean with axes that are computed$"):
        opsets.lower(model, 17)


# --- whole models -----------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Attention, layer norms and a hard swish."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.Hardswish(), nn.Linear(32, 4))

    def forward(self, x):
        return self.head(self.block(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


IMAGE = torch.randn(1, 3, 16, 16)


@pytest.mark.parametrize("opset", [17, 13, 11])
def test_a_pruned_transformer_for_an_old_device_can_be_pruned_again(opset, tmp_path):
    path, again = tmp_path / "slim.onnx", tmp_path / "again.onnx"
    slim, done = peelcli.prune(Tokens().eval(), IMAGE, out=path, flops="70%", opset=opset)
    checks = {check.name: check for check in done.checks}
    assert checks["onnx_checker"].note == f"opset {opset}"
    assert checks["dynamic_batch"].ok
    written = onnx.load(path)
    assert written.ir_version <= 8
    assert {entry.domain: entry.version for entry in written.opset_import} == {"": opset}
    many = torch.randn(5, 3, 16, 16)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: many.numpy()})
    np.testing.assert_allclose(found, slim(many).detach().numpy(), atol=1e-4)
    counted = count(path)
    assert (counted.macs, counted.uncounted) == (done.after.macs, ())
    _, more = peelcli.prune(path, flops="70%", out=again)
    assert more.after.macs < done.after.macs
    assert onnx.load(again).opset_import[0].version == opset


def test_an_operator_that_is_not_there_is_a_clear_refusal(tmp_path):
    class Resampled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
            self.register_buffer("grid", torch.rand(1, 4, 4, 2))

        def forward(self, x):
            where = self.grid.expand(x.shape[0], -1, -1, -1)
            return nn.functional.grid_sample(self.b(self.a(x).relu()), where, align_corners=False)

    with pytest.raises(ExportError, match=r"^opset 13 has no GridSample$") as caught:
        peelcli.prune(Resampled().eval(), IMAGE, out=tmp_path / "slim.onnx", flops="70%", opset=13)
    assert caught.value.hint == "give a newer --opset"
    assert not list(tmp_path.iterdir())
    old = tmp_path / "old.onnx"
    onnx_files.write(Subject(Resampled().eval(), (IMAGE,), "net"), {}, old, old.name, pick(GraphForm, {"opset": 16}))
    assert onnx.load(old).opset_import[0].version == 16


class Convs(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 144, 4))


OLD_EXPORTER = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@OLD_EXPORTER
@pytest.mark.parametrize(
    ("given", "written", "note"),
    [
        (9, 11, "newer than 9, that of the file which the model came from: 11 is the oldest that can be written"),
        (12, 12, None),
        (17, 17, None),
        (18, 18, None),
        (19, 18, None),
        (20, 20, None),
    ],
)
def test_a_file_keeps_its_opset(given, written, note, tmp_path):
    source, out = tmp_path / "net.onnx", tmp_path / "slim.onnx"
    torch.onnx.export(Convs().eval(), (IMAGE,), source, dynamo=given > 17, opset_version=given)
    _, done = peelcli.prune(source, flops="60%", out=out)
    assert onnx.load(out).opset_import[0].version == written
    notes = {check.name: check.note for check in done.checks}
    assert notes.get("onnx_opset") == note
    peelcli.prune(source, flops="60%", out=out, opset=20)
    assert onnx.load(out).opset_import[0].version == 20


def test_what_torch_writes_unasked(tmp_path):
    """The constant that says which files may keep their opset."""
    path = tmp_path / "net.onnx"
    onnx_files.write(Subject(Convs().eval(), (IMAGE,), "net"), {}, path, path.name)
    assert onnx.load(path).opset_import[0].version == onnx_files.DEFAULT


@OLD_EXPORTER
def test_a_file_whose_opset_can_not_be_had_gets_another(tmp_path, monkeypatch):
    source, out = tmp_path / "net.onnx", tmp_path / "slim.onnx"
    torch.onnx.export(Convs().eval(), (IMAGE,), source, dynamo=False, opset_version=13)

    def refuse(proto, opset):
        raise opsets.NoOlderForm("Conv")

    monkeypatch.setattr(opsets, "lower", refuse)
    _, done = peelcli.prune(source, flops="60%", out=out)
    assert onnx.load(out).opset_import[0].version == onnx_files.DEFAULT
    notes = {check.name: check.note for check in done.checks}
    assert notes["onnx_opset"] == "newer than 13, that of the file which the model came from: opset 13 has no Conv"


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 13, 11])
@pytest.mark.parametrize("name", {**SMALL, **MORE})
def test_the_whole_small_zoo(name, opset, tmp_path):
    """All checks hold, against onnxruntime too."""
    entry, _ = {**SMALL, **MORE}[name]
    module = liven(entry)
    path = tmp_path / "net.onnx"
    subject = Subject(module, inputs_of(entry, module), name)
    onnx_files.write(subject, {}, path, path.name, pick(GraphForm, {"opset": opset}))
    assert onnx.load(path).opset_import[0].version == opset
