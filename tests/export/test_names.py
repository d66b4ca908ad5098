"""What exported graphs call their inputs and outputs: as the model does, or as the file that it was made of."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

import peelcli
from peelcli.export import targets
from tests.export.conftest import subject_of


def called(path):
    """Names of a file's inputs and outputs."""
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


class Heads(nn.Module):
    """Returns its tensors in a container of a given kind."""

    def __init__(self, container):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.container = container

    def forward(self, x):
        x = self.linear(x)
        return self.container(x, x.relu())


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclass
class Holder:
    first: torch.Tensor
    second: torch.Tensor
    third: torch.Tensor | None = None


torch.export.register_dataclass(Holder, serialized_type_name="tests.export.Holder")


@pytest.mark.parametrize(
    ("container", "names"),
    [
        pytest.param(lambda x, y: {"out": x, "aux": y}, ["out", "aux"], id="a dict"),
        pytest.param(lambda x, y: OrderedDict(z=y, a=x), ["z", "a"], id="an ordered dict"),
        pytest.param(lambda x, y: {"out": x}, ["out"], id="one tensor in a dict"),
        pytest.param(lambda x, y: {"out": x, "maps": [y, x + y]}, ["out", "maps_0", "maps_1"], id="a list in a dict"),
        pytest.param(lambda x, y: {"linear.weight": x, 1: y}, ["linear.weight_", "1"], id="a name that is taken"),
        pytest.param(Pair, ["first", "second"], id="a named tuple"),
        pytest.param(Holder, ["first", "second"], id="a dataclass"),
        pytest.param(lambda x, y: SequenceClassifierOutput(logits=x, hidden_states=(y,)), ["logits", "hidden_states"],
                     id="transformers"),
        pytest.param(lambda x, y: (x, {"aux": y}), ["output_0", "output_1"], id="a dict in a tuple"),
    ],
)  # fmt: skip
def test_outputs_are_called_as_the_model_calls_them(container, names, plan, costs, tmp_path):
    targets.write(subject_of(Heads(container), torch.ones(2, 6)), plan, costs, [tmp_path / "slim.onnx"])
    assert called(tmp_path / "slim.onnx") == (["input"], names)


class Segmenter(nn.Module):
    """Two maps of one image, or of two."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.mask = nn.Conv2d(16, 2, 1)
        self.edges = nn.Conv2d(16, 4, 1)

    def forward(self, image, other=None):
        x = self.stem(image if other is None else image - other).relu()
        return self.mask(x), self.edges(x)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        pytest.param(["images"], ["mask", "edge map"], id="one input"),
        pytest.param(["left/image", "1"], ["input", "output"], id="two inputs, names that mean something else here"),
    ],
)
def test_what_runs_an_onnx_file_runs_the_slim_one(inputs, outputs, tmp_path):
    torch.manual_seed(0)
    images = (torch.randn(1, 3, 8, 8),) * len(inputs)
    program = torch.onnx.export(
        Segmenter().eval(), images, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
    )
    proto = program.model_proto
    proto.doc_string, proto.model_version = "finds edges", 7
    for key, value in {"names": "{0: 'cat'}", "peel.version": "0.0"}.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, tmp_path / "model.onnx")
    peelcli.prune(tmp_path / "model.onnx", flops="60%", out=[tmp_path / "slim.onnx", tmp_path / "slim.pt"])
    assert called(tmp_path / "slim.onnx") == (inputs, outputs)
    slim = onnx.load(tmp_path / "slim.onnx")
    notes = [(entry.key, entry.value) for entry in slim.metadata_props]
    assert (slim.doc_string, slim.model_version, dict(notes)["names"]) == ("finds edges", 7, "{0: 'cat'}")
    assert dict(notes)["peel.version"] == peelcli.__version__
    assert len(dict(notes)) == len(notes)
