"""Files in the real onnxruntime: who is compared with whom, and what is said where nothing is won."""

from __future__ import annotations

import re

import onnx
import pytest

from peelcli.errors import InputError, SourceError, UsageError
from peelcli.latency import compare, measure
from peelcli.latency.bench import bench, conditions
from peelcli.latency.profile import Node, Profile, profile
from peelcli.latency.reasons import Work, reasons, work_of
from peelcli.latency.weights import weights_by_node
from peelcli.timings import Conditions, Ratio
from tests.support.onnxfiles import convolutions

SHORT = 0.05
SLOWER = Ratio(1.1, 1.05, 1.2, 0.95, 20)


def test_measure_and_compare(tmp_path):
    wide = convolutions(tmp_path / "wide.onnx", 3, 64, 64)
    narrow = convolutions(tmp_path / "narrow.onnx", 3, 16, 16)
    found = measure(wide, Conditions(batch=2), seconds=SHORT)
    assert 0 < found.least <= found.low <= found.median <= found.high
    before, after, ratio = compare(wide, narrow, seconds=SHORT)
    assert before.calls >= 2 * ratio.rounds >= 18
    assert ratio.low <= ratio.value <= ratio.high
    assert after.least > 0


def test_every_file_is_compared_with_the_first(tmp_path):
    paths = [convolutions(tmp_path / f"{width}.onnx", 3, width, 16) for width in (32, 32, 16)]
    (found,) = bench(paths, conditions((), (), ()), seconds=SHORT)
    assert found.inputs == ("input=1x3x16x16",)
    assert [each.ratio is None for each in found.files] == [True, False, False]
    assert [each.macs for each in found.files] == [16 * 16 * 9 * w * (3 + 16) for w in (32, 32, 16)]
    (same, _) = found.files[1:]
    assert same.ratio.verdict == "faster" or "of the multiply-adds" in same.reasons[0]


def test_conditions_are_all_combinations():
    found = conditions(("cpu",), (1, 2), (1, 8))
    assert found == tuple(Conditions("cpu", threads, batch) for threads in (1, 2) for batch in (1, 8))
    assert conditions(("CPUExecutionProvider",), (), ()) == (Conditions("cpu", 1, None),)
    assert conditions((), (), ())[0] == Conditions("cpu", 1, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((("tpu",), (), ()), "no provider 'tpu'"), (((), (0,), ()), "--threads 0"), (((), (), (-1,)), "--batch -1")],
)
def test_conditions_that_can_not_be(arguments, message):
    with pytest.raises(UsageError, match=message):
        conditions(*arguments)


def test_files_with_other_inputs_are_not_compared(tmp_path):
    one = convolutions(tmp_path / "one.onnx", 3, 8, side=16)
    other = convolutions(tmp_path / "other.onnx", 3, 8, side=8)
    with pytest.raises(InputError, match="their times can't be compared"):
        list(bench([one, other], [Conditions()], seconds=SHORT))


def test_an_open_size_has_to_be_given(tmp_path):
    path = convolutions(tmp_path / "open.onnx", 3, 8, side="side")
    with pytest.raises(InputError, match="leaves the shape of input open") as refused:
        measure(path, seconds=SHORT)
    assert "--input input=1x3x224x224" in refused.value.hint
    assert measure(path, given=("1,3,8,8",), seconds=SHORT).calls


def test_what_is_no_model(tmp_path):
    torn = convolutions(tmp_path / "torn.onnx", 3, 8)
    torn.write_bytes(torn.read_bytes()[:40])
    for path, message in ((torn, "can't load"), (tmp_path / "none.onnx", "no file"), (tmp_path, "no file")):
        with pytest.raises(SourceError, match=message):
            measure(path, seconds=SHORT)


def test_weights_that_lie_elsewhere_and_are_gone(tmp_path):
    path = convolutions(tmp_path / "net.onnx", 3, 64)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").unlink()
    with pytest.raises(SourceError, match="can't load") as refused:
        measure(path, seconds=SHORT)
    assert "another file" in refused.value.hint


def test_a_profile_counts_what_the_file_says(tmp_path):
    path = convolutions(tmp_path / "net.onnx", 3, 20, 32, side=8)
    found = profile(path, Conditions(batch=2), optimised=False)
    assert found.macs == 2 * 8 * 8 * 9 * (3 * 20 + 20 * 32)
    assert [node.channels for node in found.nodes if node.macs] == [(3, 20), (20, 32)]


def test_fused_nodes_are_known_by_their_weights(tmp_path):
    path = convolutions(tmp_path / "net.onnx", 16, 32, 32)
    weights = weights_by_node(path)
    products = [node for node in profile(path, Conditions()).nodes if node.macs]
    assert [weights[node.name] for node in products] == ["conv0.weight", "conv1.weight"]


def test_unaligned_widths_are_a_reason(tmp_path):
    before = convolutions(tmp_path / "before.onnx", 16, 64, 64)
    after = convolutions(tmp_path / "after.onnx", 16, 51, 51)
    told = reasons(work_of(before, Conditions(), ()), work_of(after, Conditions(), ()), SLOWER)
    assert re.match(r"unaligned widths: \d+ % .*multiple of 16 \(conv.*--align 16", told[0])


def _work(*nodes: Node, call: float = 1.0) -> Work:
    return Work(sum(node.macs for node in nodes), Profile(nodes, call), {})


def _conv(name: str, seconds: float, width: int = 64, moved: int = 1000) -> Node:
    return Node(name, "Conv", seconds, ((1, width, 8, 8), (width, width, 3, 3)), (1, width, 8, 8), moved)


def _relu(seconds: float) -> Node:
    return Node("relu", "Relu", seconds, ((1, 64, 8, 8),), (1, 64, 8, 8), 32768)


@pytest.mark.parametrize(
    ("after", "beginning"),
    [
        (_work(_conv("a", 0.6, 32), _conv("b", 0.2, 32), _conv("c", 0.2, 32)), "one layer dominates: a (Conv)"),
        (_work(_conv("a", 0.2, 32), *[_relu(0.1)] * 8), "memory-bound: 80 %"),
        (_work(*[_conv("a", 0.1, 32)] * 4), "fixed cost: 60 %"),
        (_work(*[_conv("a", 0.25, 32)] * 4), "no single cause stands out; the slowest: a (Conv) 25 %"),
        (_work(*[_conv("a", 0.25)] * 4), "it does 100 % of the multiply-adds"),
    ],
)
def test_reasons(after, beginning):
    before = _work(*[_conv("a", 0.25)] * 4)
    assert reasons(before, after, SLOWER)[0].startswith(beginning)


def test_who_keeps_the_promise_needs_no_reason():
    before, after = _work(*[_conv("a", 0.25)] * 4), _work(*[_conv("a", 0.6, 32)] * 4)
    assert reasons(before, after, Ratio(0.3, 0.28, 0.32, 0.95, 20)) == ()
    assert reasons(before, after, Ratio(0.9, 0.88, 0.92, 0.95, 20)) != ()
