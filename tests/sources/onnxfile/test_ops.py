"""Single ops, by hand: loading compares each module with onnxruntime, so that reaching the end is the test."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from peelcli.errors import SourceError

IMAGE = (1, 4, 6, 6)
DRAW = np.random.default_rng(0)


def floats(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def node(kind, inputs="x", outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


# op, its attributes, the shape of x, constant inputs in order
UNARY = [
    ("LeakyRelu", {"alpha": 0.2}, IMAGE, ()),
    ("Elu", {"alpha": 0.7}, IMAGE, ()),
    ("Selu", {}, IMAGE, ()),
    ("Celu", {"alpha": 1.5}, IMAGE, ()),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.4}, IMAGE, ()),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, IMAGE, ()),
    ("Softplus", {}, IMAGE, ()),
    ("Softsign", {}, IMAGE, ()),
    ("Mish", {}, IMAGE, ()),
    ("ThresholdedRelu", {"alpha": 0.3}, IMAGE, ()),
    ("PRelu", {}, IMAGE, (floats(4, 1, 1),)),
    ("PRelu", {}, IMAGE, (floats(6),)),
    ("Clip", {}, IMAGE, (np.float32(-0.5), np.float32(0.5))),
    ("Softmax", {"axis": 1}, IMAGE, ()),
    ("LogSoftmax", {}, (2, 5), ()),
    ("Erf", {}, IMAGE, ()),
    ("Round", {}, IMAGE, ()),
    ("Sign", {}, IMAGE, ()),
    ("Cos", {}, IMAGE, ()),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, IMAGE, ()),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, IMAGE, ()),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (1, 4, 7, 7), ()),
    ("MaxPool", {"kernel_shape": [3], "dilations": [2]}, (1, 4, 9), ()),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, IMAGE, ()),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "count_include_pad": 1}, IMAGE, ()),
    ("GlobalMaxPool", {}, IMAGE, ()),
    ("GlobalAveragePool", {}, (1, 4, 3, 5, 2), ()),
    ("LRN", {"size": 3}, IMAGE, ()),
    ("LpNormalization", {"axis": 1, "p": 2}, IMAGE, ()),
    ("ReduceMean", {"keepdims": 0}, IMAGE, (ints(-1, 1),)),
    ("ReduceMax", {}, IMAGE, (ints(1),)),
    ("ReduceL2", {}, IMAGE, (ints(2, 3),)),
    ("ReduceProd", {}, (2, 3, 4), (ints(1, 2),)),
    ("ReduceLogSumExp", {}, IMAGE, (ints(1),)),
    ("ReduceSumSquare", {"noop_with_empty_axes": 0, "keepdims": 1}, (2, 3), (ints(1),)),
    ("Transpose", {}, (2, 3, 4), ()),
    ("Flatten", {"axis": 2}, IMAGE, ()),
    ("Flatten", {"axis": -1}, IMAGE, ()),
    ("Unsqueeze", {}, (2, 3), (ints(0, -1),)),
    ("Squeeze", {}, (2, 1, 3, 1), (ints(1, 3),)),
    ("Reshape", {}, (2, 3, 4), (ints(0, -1),)),
    ("Expand", {}, (2, 1, 4), (ints(3, 1),)),
    ("Tile", {}, (2, 3), (ints(1, 2),)),
    ("Slice", {}, IMAGE, (ints(1, -3), ints(10**18, -1), ints(1, -1), ints(2, 1))),
    ("Slice", {}, IMAGE, (ints(-1), ints(-(10**18)), ints(3), ints(-2))),
    ("Gather", {"axis": 1}, IMAGE, (ints(-1, 0, 2),)),
    ("Gather", {"axis": 2}, IMAGE, (np.array([[0, 1], [5, 2]]),)),
    ("Gather", {"axis": -1}, IMAGE, (np.array(3),)),
    ("GatherElements", {"axis": 1}, (2, 3), (np.array([[0, 2], [1, 0]]),)),
    ("GatherND", {}, (2, 3, 4), (np.array([[0, 1], [1, 2]]),)),
    ("Pad", {}, IMAGE, (ints(0, 0, 1, 2, 0, 0, 2, 0), np.float32(0.7))),
    ("Pad", {"mode": "reflect"}, IMAGE, (ints(0, 0, 1, 2, 0, 0, 2, 1),)),
    ("Pad", {"mode": "edge"}, IMAGE, (ints(0, 0, 1, 1, 0, 0, 1, 1),)),
    ("Pad", {}, IMAGE, (ints(0, 3, 0, 2), np.float32(0))),
    ("DepthToSpace", {"blocksize": 2}, IMAGE, ()),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, IMAGE, ()),
    ("SpaceToDepth", {"blocksize": 2}, IMAGE, ()),
    ("Trilu", {"upper": 0}, (3, 3), (np.array(1),)),
    ("CumSum", {}, (2, 5), (np.array(1),)),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, IMAGE,
     (floats(0), np.array([1, 1, 2, 2], np.float32))),
    ("Resize", {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, IMAGE,
     (floats(0), floats(0), ints(1, 4, 9, 7))),
    ("Resize", {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}, IMAGE,
     (floats(0), np.array([1, 1, 1.5, 2], np.float32))),
    ("Mul", {}, IMAGE, (floats(4, 1, 1),)),
    ("Sub", {}, IMAGE, (np.float32(0.3),)),
    ("Pow", {}, IMAGE, (np.float32(2),)),
    ("Mod", {"fmod": 1}, IMAGE, (np.float32(0.4),)),
    ("Max", {}, IMAGE, (np.float32(0.1), floats(6))),
    ("Mean", {}, IMAGE, (floats(6), floats(6, 6))),
]  # fmt: skip


@pytest.mark.parametrize("case", UNARY, ids=lambda case: case[0])
def test_ops_of_one_tensor(case, loaded):
    kind, attributes, shape, constants = case
    names = {f"c{at}": np.asarray(value) for at, value in enumerate(constants)}
    if kind == "Pad" and len(constants[0]) == 4:  # opset 18: only some axes
        names["c2"] = ints(1, 3)
    inside = node("Mul", "x scale", "scaled")
    last = node(kind, " ".join(["scaled", *names]), **attributes)
    made = loaded([inside, last], {"x": shape}, {"scale": floats(1), **names})
    with torch.no_grad():
        assert isinstance(made.module.double()(*(x.double() for x in made.inputs)), torch.Tensor)


CONVOLUTIONS = [
    ("Conv", (1, 4, 9), (6, 2, 3), {"group": 2, "strides": [2]}, nn.Conv1d),
    ("Conv", IMAGE, (6, 4, 3, 3), {"pads": [0, 1, 2, 1], "dilations": [1, 2]}, nn.Conv2d),
    ("Conv", (1, 4, 7, 7), (6, 4, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, nn.Conv2d),
    ("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 2, 2), {}, nn.Conv3d),
    ("ConvTranspose", IMAGE, (4, 3, 3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1], "group": 2},
     nn.ConvTranspose2d),
]  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: f"{case[0]}{len(case[1]) - 2}d")
def test_convolutions_are_layers(case, loaded):
    kind, shape, filters, attributes, layer = case
    out = filters[1] * attributes.get("group", 1) if kind == "ConvTranspose" else filters[0]
    made = loaded([node(kind, "x a.weight a.bias", **attributes)], {"x": shape},
                  {"a.weight": floats(*filters), "a.bias": floats(out)})  # fmt: skip
    assert isinstance(made.module.a, layer)


NORMS = [
    ("BatchNormalization", IMAGE, (floats(4), floats(4), floats(4), abs(floats(4))), {}, nn.BatchNorm2d),
    ("InstanceNormalization", IMAGE, (floats(4), floats(4)), {"epsilon": 1e-3}, nn.InstanceNorm2d),
    ("LayerNormalization", (2, 3, 8), (floats(8), floats(8)), {"axis": 2}, nn.LayerNorm),
    ("LayerNormalization", (2, 3, 8), (floats(3, 8),), {"axis": 1}, nn.LayerNorm),
    ("GroupNormalization", IMAGE, (floats(2), floats(2)), {"num_groups": 2}, nn.GroupNorm),
]


@pytest.mark.parametrize("case", NORMS, ids=lambda case: case[0])
def test_norms_are_layers(case, loaded):
    kind, shape, constants, attributes, layer = case
    names = dict(zip(("n.weight", "n.bias", "n.mean", "n.var"), constants, strict=False))
    made = loaded([node(kind, " ".join(["x", *names]), **attributes)], {"x": shape}, names)
    assert isinstance(made.module.n, layer)


@pytest.mark.parametrize(
    ("attributes", "second", "third", "bias"),
    [
        ({"transB": 1}, (5, 4), (5,), True),
        ({"alpha": 0.5, "beta": 2.0}, (4, 5), (1, 5), True),
        ({"transB": 1}, (5, 4), (3, 5), False),
    ],
)
def test_gemm(attributes, second, third, bias, loaded):
    made = loaded([node("Gemm", "x fc.weight c", **attributes)], {"x": (3, 4)},
                  {"fc.weight": floats(*second), "c": floats(*third)})  # fmt: skip
    assert isinstance(made.module.fc, nn.Linear)
    assert (made.module.fc.bias is not None) == bias


def test_a_product_and_the_bias_after_it_are_one_layer(loaded):
    nodes = [node("MatMul", "x val_1", "h"), node("Add", "fc.bias h", "y")]
    made = loaded(nodes, {"x": ("n", 3, 4)}, {"val_1": floats(4, 5), "fc.bias": floats(5)})
    assert isinstance(made.module.fc, nn.Linear)
    assert made.module.fc.bias is not None
    assert [n.op for n in made.module.graph.nodes] == ["placeholder", "call_module", "output"]


def test_a_head_that_is_tied_to_its_embedding_stays_tied(loaded):
    nodes = [node("Gather", "embed.weight ids", "h"), node("Transpose", "embed.weight", "t", perm=[1, 0]),
             node("MatMul", "h t", "y")]  # fmt: skip
    made = loaded(nodes, {"ids": ("n", 5)}, {"embed.weight": floats(9, 4)}, types={"ids": TensorProto.INT64})
    linear = next(part for part in made.module.modules() if isinstance(part, nn.Linear))
    assert made.module.embed.weight is linear.weight


def test_vectors_that_happen_to_be_equal_are_not_tied(loaded):
    """Exporters merge equal biases and norms; to prune one of them must not touch the other."""
    nodes = [node("MatMul", "x a.weight", "h"), node("Add", "h a.bias", "i"), node("MatMul", "i b.weight", "j"),
             node("Add", "j a.bias", "y")]  # fmt: skip
    made = loaded(nodes, {"x": ("n", 4)}, {"a.weight": floats(4, 4), "b.weight": floats(4, 4), "a.bias": floats(4)})
    assert made.module.a.bias is not made.module.b.bias


def test_sizes_computed_from_shapes_follow_the_batch(loaded):
    nodes = [
        node("Conv", "x c.weight", "h"),
        node("Shape", "h", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n front", "n1"),
        node("Slice", "s two four", "hw"),
        node("ReduceProd", "hw", "area", keepdims=1),
        node("Concat", "n1 groups area", "sizes", axis=0),
        node("Reshape", "h sizes", "y"),
    ]
    constants = {"zero": np.array(0), "front": ints(0), "two": ints(2), "four": ints(4), "groups": ints(2, 3)}
    made = loaded(nodes, {"x": ("n", 4, 6, 6)}, {"c.weight": floats(6, 4, 1, 1), **constants})
    reshape = next(part for part in made.module.modules() if type(part).__name__ == "Reshape")
    assert reshape.sizes[1:] == (2, 3, 36)
    assert made.module(torch.zeros(5, 4, 6, 6)).shape == (5, 2, 3, 36)


def test_a_second_open_size_stays_open(loaded):
    nodes = [
        node("Gather", "table ids", "h"),
        node("Shape", "ids", "s"),
        node("Gather", "s one", "length", axis=0),
        node("Range", "zero length one", "places"),
        node("Gather", "wpe places", "p"),
        node("Add", "h p", "y"),
    ]
    weights = {"table": floats(9, 4), "wpe": floats(40, 4), "zero": np.array(0), "one": np.array(1)}
    made = loaded(nodes, {"ids": ("n", "length")}, weights, types={"ids": TensorProto.INT64})
    assert made.inputs[0].shape == (1, 16)
    assert any("guessed: --input ids=1x16:int64" in note for note in made.notes)
    assert made.module(torch.zeros(3, 7, dtype=torch.int64)).shape == (3, 7, 4)


def test_split_topk_where_and_onehot(loaded):
    nodes = [
        node("Split", "x parts", "a b", axis=1),
        node("TopK", "b k", "v i", axis=-1),
        node("Greater", "v half", "m"),
        node("Where", "m v half", "w"),
        node("OneHot", "i depth values", "o"),
        node("ReduceSum", "o last", "s", keepdims=0),
        node("Concat", "w s", "y", axis=1),
        node("ArgMax", "a", "z", axis=1),
    ]
    weights = {"parts": ints(1, 3), "k": ints(2), "half": np.float32(0.5), "depth": np.array(6), "last": ints(-1),
               "values": np.array([0, 1], np.float32)}  # fmt: skip
    made = loaded(nodes, {"x": (1, 4, 6)}, weights, outputs=("y", "z"), types={"z": TensorProto.INT64})
    assert [tuple(part.shape) for part in made.module(*made.inputs)] == [(1, 6, 2), (1, 1, 6)]


def test_a_branch_that_is_fixed_is_taken(loaded):
    def branch(kind):
        end = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
        return helper.make_graph([node(kind, "x", "b")], kind, [], [end])

    taken = helper.make_node("If", ["yes"], ["y"], then_branch=branch("Relu"), else_branch=branch("Exp"))
    made = loaded([taken], {"x": (2, 3)}, {"yes": np.array(True)})
    assert any(isinstance(part, nn.ReLU) for part in made.module.modules())


def test_a_branch_that_is_not_fixed_is_refused(loaded):
    end = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    body = helper.make_graph([node("Relu", "x", "b")], "g", [], [end])
    nodes = [node("ReduceSum", "x", "s", keepdims=0), node("Cast", "s", "c", to=TensorProto.BOOL),
             helper.make_node("If", ["c"], ["y"], "cond", then_branch=body, else_branch=body)]  # fmt: skip
    with pytest.raises(SourceError, match=r"op If \(node 'cond'\) decides while it runs"):
        loaded(nodes, {"x": (2, 3)})


def test_functions_in_a_file_are_written_out(tmp_path):
    from tests.sources.onnxfile.conftest import by_hand

    body = [node("Relu", "a", "h"), node("Exp", "h", "b")]
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "Both", ["a"], ["b"], body, opsets)
    model = by_hand([helper.make_node("Both", ["x"], ["y"], domain="own")], {"x": (2, 3)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, tmp_path / "f.onnx")
    from peelcli.sources.onnxfile import load

    assert len(load.load(tmp_path / "f.onnx").module.graph.nodes) == 4


def test_an_unknown_op_is_named(loaded):
    with pytest.raises(SourceError, match=r"op Det \(node 'odd'\) is not known") as caught:
        loaded([helper.make_node("Det", ["x"], ["y"], "odd")], {"x": (3, 3)})
    assert "torch.save" in caught.value.hint


def test_an_op_of_another_domain_is_named(loaded):
    with pytest.raises(SourceError, match=r"op FusedConv \(node 'f'\) of the domain com.microsoft is not known"):
        loaded([helper.make_node("FusedConv", ["x"], ["y"], "f", domain="com.microsoft")], {"x": (3, 3)})


def test_a_quantised_file_is_refused_with_what_to_do(loaded):
    nodes = [node("QuantizeLinear", "x scale", "y")]
    with pytest.raises(SourceError, match="is quantised: op QuantizeLinear") as caught:
        loaded(nodes, {"x": (3, 3)}, {"scale": np.float32(0.1)})
    assert "floating-point" in caught.value.hint


def test_half_precision(loaded):
    weights = {"c.weight": floats(6, 4, 3, 3).astype(np.float16)}
    types = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16}
    made = loaded([node("Conv", "x c.weight")], {"x": IMAGE}, weights, types=types)
    assert made.module.c.weight.dtype is torch.float16


def test_a_view_that_is_spelled_as_positions_is_a_reshape(loaded):
    """As torch's exporter writes as_strided, with the batch open and with the batch fixed."""
    nodes = [node("Conv", "x c.weight", "h"), node("Reshape", "h minus", "flat"), node("Gather", "flat at", "y")]
    weights = {"c.weight": floats(6, 4, 3, 3), "minus": ints(-1), "at": np.arange(6 * 16).reshape(1, 6, 16)}
    made = loaded(nodes, {"x": IMAGE}, weights)
    assert made.module(torch.zeros(3, 4, 6, 6)).shape == (3, 6, 16)

    rows = [
        node("Shape", "h", "s", start=0, end=1),
        node("Squeeze", "s", "n"),
        node("Range", "zero n one", "r"),
        node("Mul", "r size", "first"),
        node("Unsqueeze", "first axes", "up"),
        node("Add", "up at", "at2"),
    ]
    more = {"zero": np.array(0), "one": np.array(1), "size": np.array(96), "axes": ints(1, 2)}
    made = loaded([*nodes[:2], *rows, node("Gather", "flat at2", "y")], {"x": ("n", *IMAGE[1:])}, weights | more)
    reshapes = [part for part in made.module.modules() if type(part).__name__ == "Reshape"]
    assert [part.sizes[1:] for part in reshapes] == [(6, 16)]
    assert made.module(torch.zeros(3, 4, 6, 6)).shape == (3, 6, 16)


def test_positions_in_another_order_stay_positions(loaded):
    weights = {"minus": ints(-1), "at": np.arange(96)[::-1].reshape(6, 16).copy(), "c.weight": floats(6, 4, 3, 3)}
    nodes = [node("Conv", "x c.weight", "h"), node("Reshape", "h minus", "flat"), node("Gather", "flat at", "y")]
    made = loaded(nodes, {"x": IMAGE}, weights)
    assert any(type(part).__name__ == "Take" for part in made.module.modules())
    assert any("can't be changed" in note for note in made.notes)
