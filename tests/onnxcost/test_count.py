"""Counts of graphs that are small enough to count by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from peelcli.errors import InputError, SourceError
from peelcli.footprint import UNWEIGHTED
from peelcli.inputtext import parse
from peelcli.onnxcost.count import count

node = helper.make_node


def whole(*entries):
    return np.array(entries, np.int64)


CASES = {
    "a convolution": ([node("Conv", ["x", "a.weight"], ["y"])], {"x": (1, 4, 8, 8)}, {"a.weight": (6, 4, 3, 3)},
                      6 * 6 * 6 * 4 * 9, 6),
    "in groups": ([node("Conv", ["x", "w"], ["y"], group=2)], {"x": (1, 4, 8, 8)}, {"w": (6, 2, 3, 3)},
                  6 * 6 * 6 * 2 * 9, 6),
    "depthwise": ([node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1])], {"x": (1, 4, 8, 8)},
                  {"w": (4, 1, 3, 3)}, 64 * 4 * 9, 4),
    "transposed": ([node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)], {"x": (1, 4, 5, 5)},
                   {"w": (4, 3, 2, 2)}, 25 * 4 * 3 * 4, 6),
    "gemm": ([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"x": (1, 7)}, {"w": (3, 7), "b": (3,)}, 21, 3),
    "gemm, transposed input": ([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": (1, 7)}, {"w": (1, 3)}, 21, 3),
    "a matrix for every position": ([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 5, 7)}, {"w": (7, 3)}, 105, 3),
    "a transposed weight": ([node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])], {"x": (1, 5, 7)},
                            {"w": (3, 7)}, 105, 3),
    "einsum": ([node("Einsum", ["x", "w"], ["y"], equation="bij,jk->bik")], {"x": (1, 5, 7)}, {"w": (7, 3)}, 105, None),
    "both directions of an lstm": (
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3, direction="bidirectional", layout=1)],
        {"x": (1, 5, 7)},
        {"w": (2, 12, 7), "r": (2, 12, 3)}, 5 * 2 * 12 * 10, 3),
    "a quantised convolution": (
        [node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])], {"x": (1, 4, 8, 8)},
        {"w": np.zeros((6, 4, 3, 3), np.uint8), "s": np.array(1, np.float32), "z": np.array(0, np.uint8)},
        6 * 6 * 6 * 4 * 9, 6),
    "fused by onnxruntime": (
        [node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")], {"x": (1, 4, 8, 8)},
        {"w": (6, 4, 3, 3)}, 6 * 6 * 6 * 4 * 9, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_op(name, made):
    nodes, inputs, weights, macs, width = CASES[name]
    kind = TensorProto.UINT8 if "quantised" in name else TensorProto.FLOAT
    found = count(made(nodes, inputs, weights, kind=kind))
    (layer,) = [layer for layer in found.layers if layer.macs]
    assert (found.macs, layer.width, found.uncounted) == (macs, width, ())
    known = [w.size if isinstance(w, np.ndarray) else np.prod(w) for key, w in weights.items() if key not in "sz"]
    assert found.params == sum(known)


def test_layers_are_named_by_their_weights_else_by_their_bias_else_by_the_node(made):
    nodes = [
        node("MatMul", ["x", "val_3"], ["a"]),
        node("Add", ["a", "block.0.up.bias"], ["b"]),
        node("MatMul", ["b", "val_4"], ["c"], name="block.1/node_linear_2"),
        node("Gemm", ["c", "head.weight", "head.bias"], ["y"]),
    ]
    weights = {"val_3": (7, 3), "block.0.up.bias": (3,), "val_4": (3, 3), "head.weight": (3, 2), "head.bias": (2,)}
    found = count(made(nodes, {"x": (1, 7)}, weights))
    assert {layer.name: (layer.macs, layer.params) for layer in found.layers} == {
        "block.0.up": (21, 24), "block.1": (9, 9), "head": (6, 8)
    }  # fmt: skip


def test_a_bias_that_layers_share_names_none_of_them(made):
    """Torch's older exporter stores equal biases once, and calls folded weights by a number."""
    nodes = [
        node("Identity", ["late.fc.bias"], ["onnx::Gemm_7"]),
        node("Gemm", ["x", "onnx::Gemm_6", "onnx::Gemm_7"], ["a"], name="/early/fc/Gemm"),
        node("Gemm", ["a", "late.fc.weight", "late.fc.bias"], ["y"], name="/late/fc/Gemm"),
    ]
    weights = {"onnx::Gemm_6": (7, 3), "late.fc.weight": (3, 3), "late.fc.bias": (3,)}
    found = count(made(nodes, {"x": (1, 7)}, weights))
    assert {layer.name: layer.macs for layer in found.layers} == {"early.fc": 21, "late.fc": 9}


def test_products_of_activations_stand_together(made):
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["s"]),
             node("MatMul", ["s", "x"], ["y"])]  # fmt: skip
    (layer,) = count(made(nodes, {"x": (1, 5, 7)}, {})).layers
    assert (layer.name, layer.macs, layer.params) == (UNWEIGHTED, 2 * 5 * 5 * 7, 0)


def test_what_is_a_parameter(made):
    """Statistics, sizes and an exporter's single numbers are none; a weight that is read twice is one."""
    nodes = [
        node("BatchNormalization", ["x", "n.weight", "n.bias", "n.running_mean", "n.running_var"], ["a"]),
        node("Mul", ["a", "val_1"], ["b"]),
        node("Mul", ["b", "gain"], ["c"]),
        node("Reshape", ["c", "val_2"], ["d"]),
        node("MatMul", ["d", "w"], ["e"]),
        node("MatMul", ["e", "w"], ["y"]),
    ]
    four = dict.fromkeys(["n.weight", "n.bias", "n.running_mean", "n.running_var"], (4,))
    weights = {**four, "val_1": (1,), "gain": (1,), "val_2": whole(1, 16), "w": (16, 16)}
    found = count(made(nodes, {"x": (1, 4, 2, 2)}, weights))
    assert {layer.name: layer.params for layer in found.layers} == {"n": 8, "gain": 1, "w": 256}


def test_ops_that_onnxruntime_fuses_are_seen_through(made):
    """A convolution with its activation, a bias with GELU, a product with its activation: shapes go on behind them."""
    own = {"domain": "com.microsoft"}
    nodes = [
        node("FusedConv", ["x", "a.weight", "a.bias"], ["a"], activation="Relu", **own),
        node("FastGelu", ["a"], ["b"], **own), node("Reshape", ["b", "size"], ["c"]),
        node("FusedGemm", ["c", "head.weight", "head.bias"], ["y"], activation="Relu", transB=1, **own),
    ]  # fmt: skip
    weights = {"a.weight": (6, 4, 3, 3), "a.bias": (6,), "size": whole(1, 216), "head.weight": (5, 216),
               "head.bias": (5,)}  # fmt: skip
    found = count(made(nodes, {"x": (1, 4, 8, 8)}, weights))
    assert {layer.name: layer.macs for layer in found.layers} == {"a": 36 * 216, "head": 1080}
    assert found.unknown == ()


def test_many_computed_sizes_in_a_row(made):
    """Each shape is computed from the tensor before it, in a way that ONNX's own inference does not follow."""
    nodes, at = [], "x"
    for step in range(30):
        nodes += [node("Shape", [at], [f"s{step}"]), node("Abs", [f"s{step}"], [f"m{step}"]),
                  node("Reshape", [at, f"m{step}"], [f"r{step}"])]  # fmt: skip
        at = f"r{step}"
    found = count(made([*nodes, node("MatMul", [at, "w"], ["y"])], {"x": ("batch", 7)}, {"w": (7, 3)}))
    assert (found.macs, found.unknown) == (21, ())


def test_the_dearer_branch_counts_and_a_loop_is_named(made):
    def branch(name, width):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, width])
        weight = helper.make_tensor(f"{name}.weight", TensorProto.FLOAT, [7, width], [0.0] * 7 * width)
        return helper.make_graph([node("MatMul", ["x", f"{name}.weight"], [f"{name}_y"])], name, [], [out], [weight])

    nodes = [node("If", ["yes"], ["y"], then_branch=branch("narrow", 2), else_branch=branch("wide", 5))]
    found = count(made(nodes, {"x": (1, 7)}, {"yes": np.array(True)}))
    assert found.macs == 35
    odd = count(made([node("DFT", ["x"], ["y"])], {"x": (1, 8, 1)}, {}))
    assert odd.uncounted == ("DFT",)
    assert odd.unknown == ()
    foreign = count(made([node("Magic", ["x"], ["y"], domain="my.ops")], {"x": (1, 8)}, {}))
    assert (foreign.macs, foreign.unknown) == (0, ("Magic",))


# --- sizes


def test_sizes_that_the_graph_computes(made):
    """Range and Gather stop ONNX's own inference; the sizes do not depend on values, so they are worked out."""
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "two"], ["n"]), node("Range", ["zero", "n", "one"], ["r"]),
        node("Gather", ["x", "r"], ["g"], axis=2), node("MatMul", ["g", "w"], ["y"]),
    ]  # fmt: skip
    numbers = {"zero": np.array(0), "one": np.array(1), "two": np.array(2)}
    found = count(made(nodes, {"x": ("batch", 3, 7)}, {**numbers, "w": (7, 2)}))
    assert found.macs == 42
    assert found.peak_bytes is not None


def test_a_size_that_depends_on_values_is_said(made):
    nodes = [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["f"], to=1), node("MatMul", ["w", "f"], ["y"])]
    found = count(made(nodes, {"x": (3, 7)}, {"w": (5, 2)}))
    assert found.unknown == ("MatMul",)
    assert found.peak_bytes is None
    assert any("memory of activations is not known" in note for note in found.notes)


def test_the_batch_is_one_and_other_open_sizes_are_asked_for(made):
    nodes = [node("Conv", ["x", "w"], ["y"])]
    path = made(nodes, {"x": ("batch", 4, "height", "width")}, {"w": (6, 4, 1, 1)})
    with pytest.raises(InputError, match="leaves sizes of its input open: x is batch,4,height,width") as caught:
        count(path)
    assert "--input x=1x4x224x224" in caught.value.hint
    assert count(path, [parse("8,4,3,5")]).macs == 15 * 24
    assert count(path, [parse("x=1x4x3x5")]).inputs == ("x=1x4x3x5",)
    with pytest.raises(InputError, match=r"does not fit net\.onnx: x has the sizes batch,4,height,width"):
        count(path, [parse("1,3,3,5")])
    with pytest.raises(InputError, match="takes 1 inputs: x"):
        count(path, [parse("image=1x4x3x5")])


def test_a_size_that_two_inputs_share_is_given_once(made):
    nodes = [node("MatMul", ["a", "b"], ["y"])]
    path = made(nodes, {"a": (2, "n"), "b": ("n", 3)}, {"unused": (1,)})
    assert count(path, [parse("b=5x3")]).macs == 2 * 5 * 3


def test_a_fixed_batch_is_told_for_one_sample(made):
    found = count(made([node("MatMul", ["x", "w"], ["y"])], {"x": (8, 7)}, {"w": (7, 3)}))
    assert (found.macs, found.peak_bytes) == (21, 4 * (7 + 3))
    assert found.notes == ("the batch is fixed to 8: the figures are for one sample of it",)


# --- memory


def test_peak_memory_by_hand(made):
    """X (10) and a (20) meet, then a, b (20); the reshape is free; x lives on to the sum: 10 + 20 + 10 at the end."""
    nodes = [
        node("MatMul", ["x", "up"], ["a"]), node("Relu", ["a"], ["b"]), node("Reshape", ["b", "size"], ["c"]),
        node("MatMul", ["c", "down"], ["d"]), node("Add", ["d", "x"], ["y"]),
    ]  # fmt: skip
    found = count(made(nodes, {"x": (1, 10)}, {"up": (10, 20), "size": whole(1, 20), "down": (20, 10)}))
    assert found.peak_bytes == 4 * (10 + 20 + 20)


# --- files


def test_data_files_count_and_must_be_there(made, tmp_path):
    path = made([node("Gemm", ["x", "w"], ["y"])], {"x": (1, 70)}, {"w": (70, 30)})
    alone = count(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    split = count(path)
    assert split.bytes == path.stat().st_size + (tmp_path / "net.data").stat().st_size
    assert (split.macs, split.params) == (alone.macs, alone.params) == (2100, 2100)
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(SourceError, match=r"'w' does not fit into net\.data"):
        count(path)
    (tmp_path / "net.data").unlink()
    with pytest.raises(SourceError, match=r"needs its data file net\.data, which is not there"):
        count(path)


@pytest.mark.parametrize("length", [0.3, 0.9])
def test_a_file_that_is_cut_short(made, length):
    path = made([node("Gemm", ["x", "w"], ["y"])], {"x": (1, 70)}, {"w": (70, 30)})
    data = path.read_bytes()
    path.write_bytes(data[: int(length * len(data))])
    with pytest.raises(SourceError, match="damaged"):
        count(path)


def test_a_file_that_contradicts_itself(made):
    path = made([node("Gemm", ["x", "w"], ["y"])], {"x": (1, 70)}, {"w": (70, 30)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 71
    onnx.save(model, path)
    with pytest.raises(SourceError, match="'w' holds 8400 bytes, not 8520"):
        count(path)
    empty = onnx.ModelProto(ir_version=10)
    onnx.save(empty, path)
    with pytest.raises(SourceError, match="no graph"):
        count(path)


def test_functions_are_written_out(made):
    twice = helper.make_function(
        "mine", "Twice", ["a", "w"], ["c"], [node("MatMul", ["a", "w"], ["b"]), node("MatMul", ["b", "w"], ["c"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    path = made([node("Twice", ["x", "w"], ["y"], domain="mine")], {"x": (1, 7)}, {"w": (7, 7)})
    model = onnx.load(path)
    model.functions.append(twice)
    onnx.save(model, path)
    assert count(path).macs == 98
