"""Why a model is not faster, or by less than its multiply-adds say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peelcli.inputtext import InputSpec
from peelcli.latency.profile import Node, Profile, profile
from peelcli.latency.weights import weights_by_node
from peelcli.timings import Conditions, Ratio

BLOCK = 16  # channels in a block of onnxruntime's convolutions on AVX-512; 8 on older CPUs, which divides it
_HALF = 0.5  # of what the multiply-adds promise: with less than that there is something to explain
_SAME_WORK = 0.97
_UNALIGNED = 0.3  # share of the time in convolutions whose widths fill no block
_MORE = 0.1  # by which that share has to be above the reference's
_DOMINANT = 0.4  # share of the time in one node
_MEMORY = 0.5  # share of the time in nodes that are bound by memory
_INTENSITY = 4.0  # multiply-adds a byte: below, a core waits for memory (roofline; 2 FLOPs each, about 8 FLOPs a byte)
_OUTSIDE = 0.4  # share of a call outside of all nodes
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What a file does and where its time goes.

    Attributes:
        macs: multiply-adds of one call, as they stand in the file.
        profile: of the graph that onnxruntime makes of it.
        weights: name of the weight by name of a node.
    """

    macs: int
    profile: Profile
    weights: Mapping[str, str]


def work_of(path: Path, conditions: Conditions, given: Sequence[InputSpec]) -> Work:
    """Look at a file under onnxruntime's profiler."""
    plain = profile(path, conditions, given, optimised=False)
    return Work(plain.macs, profile(path, conditions, given), weights_by_node(path))


def reasons(before: Work, after: Work, ratio: Ratio) -> tuple[str, ...]:
    """What keeps a file from being faster than another one, worst first; none where it is as fast as promised.

    Args:
        before: the reference.
        after: the file that should be faster.
        ratio: of their measured times.
    """
    promised = after.macs / before.macs if before.macs else 1.0
    if ratio.verdict == "faster" and 1 - ratio.value >= _HALF * (1 - promised):
        return ()
    if promised > _SAME_WORK:
        return (f"it does {_percent(promised)} of the multiply-adds: there is little to win",)
    found = [*_unaligned(before, after), *_dominant(after), *_memory(after), *_overhead(after.profile)]
    return tuple(found) or (f"no single cause stands out; the slowest: {', '.join(_slowest(after))}",)


def _unaligned(before: Work, after: Work) -> list[str]:
    share, names = _unaligned_share(after)
    if share < _UNALIGNED or share < _unaligned_share(before)[0] + _MORE:
        return []
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return [
        f"unaligned widths: {_percent(share)} of the time is in convolutions whose channels are no multiple of "
        f"{BLOCK} ({shown}); cut with --align {BLOCK}, or leave --align auto"
    ]


def _unaligned_share(work: Work) -> tuple[float, list[str]]:
    """Share of the time, and the layers, the slowest first; a first layer on a few colours does not count."""
    odd = [node for node in work.profile.nodes if any(width > 4 and width % BLOCK for width in node.channels)]
    odd.sort(key=lambda node: -node.seconds)
    return sum(node.seconds for node in odd) / work.profile.seconds, [_told(node, work) for node in odd]


def _dominant(work: Work) -> list[str]:
    slowest = max(work.profile.nodes, key=lambda node: node.seconds)
    share = slowest.seconds / work.profile.seconds
    return [f"one layer dominates: {_told(slowest, work)} takes {_percent(share)}"] if share >= _DOMINANT else []


def _memory(work: Work) -> list[str]:
    bound = [node for node in work.profile.nodes if node.macs < _INTENSITY * node.bytes]
    share = sum(node.seconds for node in bound) / work.profile.seconds
    if share < _MEMORY:
        return []
    ops = sorted({_kind(node) for node in bound}, key=lambda op: -sum(n.seconds for n in bound if _kind(n) == op))
    return [
        f"memory-bound: {_percent(share)} of the time is in nodes that do fewer than {_INTENSITY:g} multiply-adds for "
        f"each byte that they move ({', '.join(ops[:_SHOWN])}); their time falls with the width, not with its square"
    ]


def _overhead(profile: Profile) -> list[str]:
    outside = 1 - profile.seconds / profile.call if profile.call else 0.0
    if outside < _OUTSIDE:
        return []
    return [f"fixed cost: {_percent(outside)} of a call is spent outside of its {len(profile.nodes)} nodes"]


def _slowest(work: Work) -> list[str]:
    nodes = sorted(work.profile.nodes, key=lambda node: -node.seconds)[:_SHOWN]
    return [f"{_told(node, work)} {_percent(node.seconds / work.profile.seconds)}" for node in nodes]


def _told(node: Node, work: Work) -> str:
    """The layer by the name of its weight, else the node."""
    weight = work.weights.get(node.name, "")
    return weight.removesuffix(".weight") or f"{node.name} ({node.op})"


def _kind(node: Node) -> str:
    return "depthwise Conv" if node.grouped else node.op


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
