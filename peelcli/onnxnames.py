"""What layers, inputs and outputs are called, from the names in ONNX files."""

from __future__ import annotations

import re

SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter notes the modules around a node
INTERFACE = "onnx_interface"  # where a module made of a file notes what that calls its inputs, and its outputs
OPEN_SIZES = "onnx_open_sizes"  # and which sizes of each input that leaves open beside the batch, by dimension
OPSET = "onnx_opset"  # and the version of the operators that it is made of
ABOUT = "onnx_about"  # and what its author wrote on it: a serialised ModelProto without a graph
OWN = "peel."  # how the keys of our own notes on a file begin
LONGEST = 200  # characters of a name that are used
_ENDINGS = re.compile(
    r"(\.|_|^)(weight|bias|gamma|beta|w|b|(running_|moving_)?(mean|var|variance))(_bias|_fused|_scale)?$", re.IGNORECASE
)
_MADE_UP = re.compile(r"^(val_\d+|onnx::.*|/.*|.*_output_\d+|\d+|_?const.*)$", re.IGNORECASE)


def says_something(name: str) -> bool:
    """Whether an initializer's name comes from the model, not from an exporter's counter."""
    return bool(name) and not _MADE_UP.match(name)


def of_weight(name: str) -> str:
    """The layer that an initializer belongs to: `layer1.0.conv1.weight` -> `layer1.0.conv1`; "" where it says none."""
    if not says_something(name):
        return ""
    stem = _ENDINGS.sub("", name)
    if stem == name and "in_proj" in name:
        return name.rpartition("_")[0]
    return stem if stem != name else ""


def of_parameter(name: str) -> str:
    """The layer of anything that a model owns: `a.conv.weight` -> `a.conv`, `a.token` -> `a`, `token` -> `token`.

    A weight that is computed from others belongs to the layer too. "" where the name is an exporter's own.
    """
    layer = name.partition(".parametrizations.")[0]
    if layer != name or not says_something(name):
        return layer if layer != name else ""
    return of_weight(name) or name.rpartition(".")[0] or name


def of_scopes(scopes: str) -> str:
    """The innermost module in the scopes that torch's exporter notes at a node: "['', 'a', 'a.b', 'linear']" -> a.b."""
    parts = re.findall(r"'([^']*)'", scopes[: 100 * LONGEST])
    return parts[-2] if len(parts) > 1 else ""


def of_node(name: str) -> str:
    """The module path in a node's name: `/layer1/layer1.0/conv1/Conv` -> `layer1.0.conv1`, `a.b/linear` -> `a.b`."""
    if "/" not in name:
        return name.removeprefix("node_")
    path: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        if path and part.startswith(f"{path[-1]}."):  # an entry of a container is called after it
            path.pop()
        path.append(part)
    return ".".join(path)
