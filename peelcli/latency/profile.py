"""What every node of a model takes and does, as onnxruntime's own profiler tells it."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from peelcli.inputtext import InputSpec
from peelcli.latency.session import Session
from peelcli.timings import Conditions

_CALLS = 10
_SECONDS = 1.0  # at most, for these calls
_NODE = "_kernel_time"
_BLOCKED = "_nchwc"  # convolutions in onnxruntime's layout of blocks of channels are called so
_FUSED = "fused "
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph that onnxruntime runs, which may stand for several of the file.

    Attributes:
        name: as the profiler calls it, without what onnxruntime adds.
        op: the operator.
        seconds: over some calls, their median or their least.
        shapes: of the inputs; () for one that is absent.
        out: of the first output.
        bytes: of all inputs, weights and outputs.
    """

    name: str
    op: str
    seconds: float
    shapes: tuple[Shape, ...]
    out: Shape
    bytes: int

    @property
    def macs(self) -> int:
        """Multiply-adds of a convolution or a matrix product; 0 for all else."""
        if not self.shapes or not self.out:
            return 0
        x = self.shapes[0]
        if self.op in ("Gemm", "FusedGemm"):
            return math.prod(x) * self.out[-1]
        if self.op in ("MatMul", "FusedMatMul"):
            return math.prod(self.out) * x[-1]
        if len(self.shapes) < 2:
            return 0
        per_position = math.prod(self.shapes[1][1:])
        if self.op in ("Conv", "FusedConv"):
            return math.prod(self.out) * per_position
        return math.prod(x) * per_position if self.op == "ConvTranspose" else 0

    @property
    def channels(self) -> tuple[int, int]:
        """Channels that a convolution reads and writes, (0, 0) for all else."""
        return (self.shapes[0][1], self.out[1]) if self.op in ("Conv", "FusedConv") and self.macs else (0, 0)

    @property
    def grouped(self) -> bool:
        """Whether it is a convolution in groups, such as a depthwise one."""
        return bool(self.channels[0]) and self.shapes[1][1] < self.channels[0]


@dataclass(frozen=True, slots=True)
class Profile:
    """All nodes of one call, and the whole call.

    Attributes:
        nodes: in the order in which they ran.
        call: seconds of the call as a whole, likewise.
    """

    nodes: tuple[Node, ...]
    call: float

    @property
    def seconds(self) -> float:
        """What all nodes take together."""
        return sum(node.seconds for node in self.nodes)

    @property
    def macs(self) -> int:
        """What all nodes do, with what onnxruntime added to fill its blocks."""
        return sum(node.macs for node in self.nodes)


def profile(
    model: Path | bytes,
    conditions: Conditions,
    given: Sequence[InputSpec] = (),
    optimised: bool = True,
    typical: Callable[[Sequence[float]], float] = median,
) -> Profile:
    """Run a model some times under the profiler.

    Args:
        model: a file, or what would be in one.
        conditions: provider, threads and batch size.
        given: shapes that the file leaves open.
        optimised: False runs the nodes as they stand in the file, once: for what they do, not for how long.
        typical: what is told of the times of some calls.

    Raises:
        PeelError: as Session.
    """
    levels = onnxruntime.GraphOptimizationLevel
    with tempfile.TemporaryDirectory(prefix="peel-") as folder:
        session = Session(
            model,
            conditions,
            given,
            enable_profiling=True,
            profile_file_prefix=str(Path(folder, "profile")),
            graph_optimization_level=levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL,
        )
        calls, spent = 0, 0.0
        while optimised and calls < _CALLS and spent < _SECONDS:
            spent += session.call()
            calls += 1
        events = json.loads(session.end_profiling().read_text("utf-8"))
    return _read(events, typical, skip=1 if calls else 0)


def _read(events: Sequence[Mapping[str, Any]], typical: Callable[[Sequence[float]], float], skip: int) -> Profile:
    """Each node's times summed up over the calls; the first `skip` calls were cold."""
    times: dict[int, list[float]] = defaultdict(list)
    first: dict[int, Mapping[str, Any]] = {}
    whole = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_NODE):
            index = int(event["args"]["node_index"])
            times[index].append(event["dur"] * 1e-6)
            first.setdefault(index, event)
        elif event["name"] == "model_run":
            whole.append(event["dur"] * 1e-6)
    nodes = tuple(_node(event, typical(times[index][skip:] or times[index])) for index, event in first.items())
    return Profile(nodes, typical(whole[skip:] or whole))


def _node(event: Mapping[str, Any], seconds: float) -> Node:
    args = event["args"]
    shapes = tuple(_shape(value) for value in args.get("input_type_shape", ()))
    out = _shape(next(iter(args.get("output_type_shape", ())), {}))
    moved = sum(int(args.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size"))
    name = event["name"].removesuffix(_NODE).removesuffix(_BLOCKED).removeprefix(_FUSED)
    return Node(name, args.get("op_name", ""), seconds, shapes, out, moved)


def _shape(value: Mapping[str, Sequence[int]]) -> Shape:
    """The profiler writes {"float": [1, 3, 224, 224]}."""
    return tuple(next(iter(value.values()), ()))
