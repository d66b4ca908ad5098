"""How long one layer takes in onnxruntime, alone in a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from peelcli.latency.profile import Profile, profile
from peelcli.timings import Conditions

_OPSET, _IR = 18, 10


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a linear layer at given widths, and what it reads.

    Attributes:
        kind: what it computes.
        inputs: channels that it reads.
        outputs: channels that it writes.
        sizes: of the other dimensions of what it reads, the batch first: (1, 56, 56); rows for a linear layer.
        kernel, stride, dilation: one number for each dimension in space; none for a linear layer.
        padding: zeros (before ..., after ...) in the order of ONNX.
        groups: of a convolution; `inputs` for a depthwise one.
    """

    kind: Literal["conv", "transposed", "linear"]
    inputs: int
    outputs: int
    sizes: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    groups: int = 1

    def at(self, outputs: int, per_group: int) -> Layer:
        """The same layer at other widths.

        Args:
            outputs: channels that it writes.
            per_group: channels that each of its groups reads. Where that does not change, groups go with the outputs.
        """
        groups = self.groups
        if groups > 1 and per_group == self.inputs // groups:
            groups = max(1, groups * outputs // self.outputs)
        return replace(self, inputs=per_group * groups, outputs=outputs, groups=groups)

    def key(self) -> str:
        """A name under which its time is kept."""
        return " ".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in astuple(self))


def measured(layer: Layer, conditions: Conditions) -> float:
    """Seconds of the layer with a ReLU behind it, as within a network: without bringing its input into its layout.

    Raises:
        PeelError: onnxruntime does not run it.
    """
    found: Profile = profile(_model(layer), conditions, typical=min)
    return sum(node.seconds for node in found.nodes if node.macs) or found.seconds


def _model(layer: Layer) -> bytes:
    source = np.random.default_rng(0)
    weight = numpy_helper.from_array(source.standard_normal(_shape(layer)).astype(np.float32), "weight")
    bias = numpy_helper.from_array(np.zeros(layer.outputs, np.float32), "bias")
    nodes = [_node(layer), helper.make_node("Relu", ["y"], ["output"])]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, _read(layer))
    put = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "layer", [given], [put], [weight, bias])
    opset = [helper.make_opsetid("", _OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=_IR).SerializeToString())


def _shape(layer: Layer) -> tuple[int, ...]:
    """Of the weight, as ONNX has it."""
    if layer.kind == "linear":
        return (layer.outputs, layer.inputs)
    if layer.kind == "transposed":
        return (layer.inputs, layer.outputs // layer.groups, *layer.kernel)
    return (layer.outputs, layer.inputs // layer.groups, *layer.kernel)


def _read(layer: Layer) -> Sequence[int]:
    batch, *space = layer.sizes
    return (batch, layer.inputs) if layer.kind == "linear" else (batch, layer.inputs, *space)


def _node(layer: Layer) -> onnx.NodeProto:
    names = ["input", "weight", "bias"]
    if layer.kind == "linear":
        return helper.make_node("Gemm", names, ["y"], transB=1)
    operator = "ConvTranspose" if layer.kind == "transposed" else "Conv"
    return helper.make_node(
        operator,
        names,
        ["y"],
        group=layer.groups,
        strides=layer.stride,
        dilations=layer.dilation,
        pads=layer.padding,
        kernel_shape=layer.kernel,
    )
