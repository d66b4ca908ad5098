"""ONNX files made inside the tests: by both exporters of torch, and by hand."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from peelcli.sources.onnxfile import load

Exporter = Callable[..., Path]


@contextlib.contextmanager
def quiet():
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def export(module: nn.Module, inputs: tuple[Any, ...], path: Path, way: str) -> Path:
    """Export in one of three ways: "new", "old", and "fixed", the old one without a dynamic batch."""
    module.eval()
    with quiet():
        if way == "new":
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} for _ in inputs)
            torch.onnx.export(module, inputs, path, dynamo=True, dynamic_shapes=shapes, external_data=False)
        elif way == "old":
            names = [f"in{at}" for at in range(len(inputs))]
            axes = {name: {0: "batch"} for name in names}
            torch.onnx.export(
                module, inputs, path, dynamo=False, opset_version=17, input_names=names, dynamic_axes=axes
            )
        else:
            first = tuple(tensor[:1] for tensor in inputs)
            torch.onnx.export(module, first, path, dynamo=False, opset_version=14)
    return path


def by_hand(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str | None]],
    weights: dict[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of a few nodes; every output has an unknown shape."""
    types = types or {}
    made = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), shape) for n, shape in inputs.items()]
    ends = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in outputs]
    held = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", made, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def loaded(tmp_path):
    """Save a model made by hand, and load it: the check against onnxruntime is part of that."""

    def save_and_load(*args: Any, **kwargs: Any) -> load.Loaded:
        path = tmp_path / "net.onnx"
        onnx.save(by_hand(*args, **kwargs), path)
        return load.load(path)

    return save_and_load
