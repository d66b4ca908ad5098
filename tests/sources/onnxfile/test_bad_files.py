"""Files that lie: refused in one line, before anything in them is used."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import peelcli as peel
from peelcli.errors import InputError, SourceError
from peelcli.sources.onnxfile import load
from tests.sources.onnxfile.conftest import by_hand


def small():
    weight = np.ones((3, 4), np.float32)
    return by_hand([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"x": ("n", 3)}, {"w": weight})


def refusal(model, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(SourceError) as caught:
        load.load(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize("end", [-1, -30, 40])
def test_truncated(end, tmp_path):
    assert "truncated or damaged" in refusal(small().SerializeToString()[:end], tmp_path)


def test_names_that_are_no_text(tmp_path, capsys):
    data = small().SerializeToString()
    for name in (b"MatMul", b"product"):
        assert "truncated or damaged" in refusal(data.replace(name, b"\xff" * len(name)), tmp_path)
    assert capsys.readouterr().out == ""


def test_another_protobuf(tmp_path):
    assert "is no ONNX model" in refusal(onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString(), tmp_path)
    assert "opset 0" in refusal(_with(lambda m: m.ClearField("opset_import")), tmp_path)


def _with(change):
    model = small()
    change(model)
    return model


def _weight(model, **fields):
    weight = model.graph.initializer[0]
    for name, value in fields.items():
        weight.ClearField(name)
        if isinstance(value, list):
            getattr(weight, name).extend(value)
        else:
            setattr(weight, name, value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dims": [2**40, 2**40]}, "'w' is 1099511627776x1099511627776, which needs"),
        ({"dims": [3, -4]}, r"'w' has the sizes [3, -4]"),
        ({"raw_data": b"1234"}, "'w' is 3x4, which needs 48, and holds 4"),
        ({"data_type": TensorProto.STRING}, "holds tensors of type STRING"),
        ({"data_type": 99}, "holds tensors of type 99"),
    ],
)
def test_tensors_that_contradict_themselves(fields, said, tmp_path):
    assert said in refusal(_with(lambda m: _weight(m, **fields)), tmp_path)


def test_typed_data_of_another_length(tmp_path):
    def change(model):
        model.graph.initializer[0].ClearField("raw_data")
        model.graph.initializer[0].float_data.extend([1.0] * 5)

    assert "needs 12, and holds 5" in refusal(_with(change), tmp_path)


def _external(model, location, offset="0", length="48"):
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../secret", "a/../../secret", "..\\secret", "C:\\secret", "", "link"]
)
def test_data_from_outside_of_the_folder(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"0" * 48)
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "outside of its folder" in refusal(_with(lambda m: _external(m, location)), folder)


@pytest.mark.parametrize(
    ("offset", "length", "said"),
    [("40", "48", "does not fit into"), ("-4", "48", "does not fit into"), ("0", "44", "does not fit into"),
     ("x", "48", "does not fit into")],
)  # fmt: skip
def test_data_beyond_the_end_of_its_file(offset, length, said, tmp_path):
    (tmp_path / "w.data").write_bytes(b"0" * 60)
    assert said in refusal(_with(lambda m: _external(m, "w.data", offset, length)), tmp_path)


def test_data_that_is_not_there(tmp_path):
    assert "needs its data file w.data, which is not there" in refusal(
        _with(lambda m: _external(m, "w.data")), tmp_path
    )


def test_a_cycle(tmp_path):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]
    model = by_hand(nodes, {"x": (1, 3)}, outputs=("b",))
    assert "the graph has a cycle" in refusal(model, tmp_path)


def test_names_that_nothing_computes_or_two_do(tmp_path):
    model = by_hand([helper.make_node("Relu", ["z"], ["y"], "one")], {"x": (1, 3)})
    assert "node 'one' reads 'z' which nothing computes" in refusal(model, tmp_path)
    model = by_hand([helper.make_node("Relu", ["x"], ["y"])] * 2, {"x": (1, 3)})
    assert "computes 'y' twice" in refusal(model, tmp_path)
    model = by_hand([helper.make_node("Relu", ["x"], ["h"])], {"x": (1, 3)})
    assert "nothing computes its output 'y'" in refusal(model, tmp_path)


def test_functions_that_call_themselves_or_explode(tmp_path):
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]

    def function(name, called):
        nodes = [helper.make_node(called, ["a"], ["h"], domain="own"),
                 helper.make_node(called, ["h"], ["b"], domain="own")]  # fmt: skip
        return helper.make_function("own", name, ["a"], ["b"], nodes, opsets)

    model = by_hand([helper.make_node("F0", ["x"], ["y"], domain="own")], {"x": (1, 3)})
    model.functions.append(function("F0", "F0"))
    model.opset_import.append(opsets[1])
    assert "functions that call themselves" in refusal(model, tmp_path)
    del model.functions[:]
    model.functions.extend(function(f"F{at}", f"F{at + 1}") for at in range(31))
    assert "functions that call themselves, or grow" in refusal(model, tmp_path)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("ConstantOfShape", ["huge"], ["h"], "big"), helper.make_node("Add", ["x", "h"], ["y"])],
        [helper.make_node("Expand", ["one", "huge"], ["h"], "big"), helper.make_node("Add", ["x", "h"], ["y"])],
        [helper.make_node("Tile", ["x", "huge"], ["y"], "big")],
        [helper.make_node("Expand", ["x", "huge"], ["y"], "big")],
        [helper.make_node("Pow", ["row", "column"], ["h"], "big"), helper.make_node("Add", ["x", "h"], ["y"])],
        [helper.make_node("MatMul", ["column", "row"], ["h"], "big"), helper.make_node("Add", ["x", "h"], ["y"])],
        [helper.make_node("Range", ["zero", "end", "one"], ["h"], "big"), helper.make_node("Add", ["x", "h"], ["y"])],
    ],
    ids=["ConstantOfShape", "Expand", "Tile", "Expand of an input", "Pow", "MatMul", "Range"],
)
def test_a_few_bytes_that_ask_for_all_memory(nodes, tmp_path):
    line = np.ones(2**16, np.float32)
    weights = {"huge": np.array([2**20, 2**20, 3]), "one": np.ones((), np.float32), "zero": np.zeros((), np.float32),
               "end": np.array(1e15, np.float32), "row": line[None], "column": line[:, None]}  # fmt: skip
    model = by_hand(nodes, {"x": (1, 1, 3)}, weights)
    assert "op " in (said := refusal(model, tmp_path))
    assert "node 'big'" in said


def test_sizes_that_do_not_fit_are_told_with_their_node(tmp_path):
    model = by_hand([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"x": (2, 5)},
                    {"w": np.ones((3, 4), np.float32)})  # fmt: skip
    assert "op MatMul (node 'product') does not fit its inputs" in refusal(model, tmp_path)


def test_many_nested_graphs(tmp_path):
    """Written by hand, as protobuf's own writer refuses them too: node 1 { attribute 5 { g 6 { node 1 { ..."""
    body = b""
    for tag in (b"\x32", b"\x2a", b"\x0a") * 300:
        length, size = b"", len(body)
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        body = tag + length + bytes([size]) + body
    size = len(body)
    head = b"\x08\x08\x3a" + bytes([size & 127 | 128, size >> 7])
    assert "truncated or damaged" in refusal(head + body, tmp_path)


def test_a_constant_in_a_node_is_checked_too(tmp_path):
    bad = numpy_helper.from_array(np.ones((2, 2), np.float32))
    bad.dims[0] = 2**50
    nodes = [helper.make_node("Constant", [], ["c"], "big", value=bad), helper.make_node("Add", ["x", "c"], ["y"])]
    assert "which needs" in refusal(by_hand(nodes, {"x": (1, 2)}), tmp_path)


def test_an_input_that_contradicts_the_file(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(small(), path)
    assert peel.load(path, input=("5,3",)).inputs[0].shape == (5, 3)
    with pytest.raises(InputError, match="x has the sizes n,3"):
        peel.load(path, input=("1,7",))
    with pytest.raises(InputError, match="takes 1 inputs: x"):
        peel.load(path, input=("z=1x3",))


def test_a_file_of_weights_is_still_asked_for_its_module(tmp_path):
    """An ONNX file is a model of its own: it is no state dict for another one."""
    path = tmp_path / "net.onnx"
    onnx.save(small(), path)
    with pytest.raises(SourceError, match="is an ONNX file"):
        peel.load(path, factory="torch.nn:Identity")
