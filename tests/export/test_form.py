"""How an ONNX file is to be: its opset, and sizes that stay open beside the batch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import peelcli
from peelcli.errors import ExportError, UsageError
from peelcli.sweeps import run
from tests.export.test_open_sizes import Fixed, Segmenter, Tagger

IMAGES = (torch.randn(1, 3, 16, 24), torch.randn(1, 3, 16, 24))


def pruned(module, example, out, **settings):
    """The slim module, the run's checks by name, and a session of the slim file."""
    slim, done = peelcli.prune(module.eval(), example, out=out, flops="80%", **settings)
    return slim, {check.name: check for check in done.checks}, onnxruntime.InferenceSession(out)


def test_sizes_that_were_asked_for_stay_open_and_keep_their_names(tmp_path):
    asked = ["image=2:height,3:width", "other=2:height,3:width"]
    slim, checks, session = pruned(Segmenter(), IMAGES, tmp_path / "slim.onnx", dynamic=asked)
    assert checks["dynamic_sizes"].ok
    assert checks["dynamic_sizes"].note == "height, width"
    assert [value.shape for value in session.get_inputs()] == [["batch", 3, "height", "width"]] * 2
    for height, width in ((16, 24), (20, 40), (64, 18)):
        given = [torch.randn(2, 3, height, width) for _ in range(2)]
        (found,) = session.run(None, {"image": given[0].numpy(), "other": given[1].numpy()})
        np.testing.assert_allclose(found, slim(*given).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("asked", ["1", "ids=1", "input=1"])
def test_one_input_needs_no_name_and_a_size_no_label(asked, tmp_path):
    slim, _, session = pruned(Tagger(), torch.randint(0, 20, (1, 8)), tmp_path / "slim.onnx", dynamic=asked)
    assert session.get_inputs()[0].shape == ["batch", "ids_1"]
    ids = torch.randint(0, 20, (3, 13))
    (found,) = session.run(None, {"input": ids.numpy()})
    np.testing.assert_allclose(found, slim(ids).detach().numpy(), atol=1e-5)


def test_without_a_word_only_the_batch_is_open(tmp_path):
    _, checks, session = pruned(Segmenter(), IMAGES, tmp_path / "slim.onnx")
    assert "dynamic_sizes" not in checks
    assert [value.shape for value in session.get_inputs()] == [["batch", 3, 16, 24]] * 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("2", "--dynamic 2: the model has several inputs"),
        ("picture=2", "--dynamic picture=2: the model has no input picture"),
        ("image=4", "--dynamic image=4: image has no dimension 4"),
    ],
)
def test_what_the_model_does_not_have_is_told_before_any_work(asked, said, tmp_path):
    stages = []
    with pytest.raises(UsageError) as caught:
        peelcli.prune(
            Segmenter().eval(), IMAGES, out=tmp_path / "slim.onnx", flops="80%", dynamic=asked,
            progress=lambda stage, *_: stages.append(stage),
        )  # fmt: skip
    assert caught.value.message == said
    assert set(stages) == {"load"}


def test_sizes_that_can_not_stay_open_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"^height can't stay open: the model itself fails at other sizes: "):
        pruned(Fixed(), torch.randn(1, 3, 8, 8), tmp_path / "slim.onnx", dynamic="2:height")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [18, 21])
def test_the_opset_that_was_asked_for(opset, tmp_path):
    _, checks, _ = pruned(Tagger(), torch.randint(0, 20, (1, 8)), tmp_path / "slim.onnx", opset=opset)
    assert checks["onnx_checker"].note == f"opset {opset}"
    written = onnx.load(tmp_path / "slim.onnx").opset_import
    assert [entry.version for entry in written if not entry.domain] == [opset]


def test_an_opset_that_can_not_be_had_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"writes this model in opset \d+, and not in 900"):
        pruned(Tagger(), torch.randint(0, 20, (1, 8)), tmp_path / "slim.onnx", opset=900)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"opset": 18}, "--opset is for .onnx files"), ({"dynamic": "1"}, "--dynamic is for .onnx and .pt2 files")],
)
def test_where_neither_plays_a_part_they_are_refused(setting, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        peelcli.prune(Tagger(), torch.randint(0, 20, (1, 8)), out=tmp_path / "slim.pt", flops="80%", **setting)


def test_plans_and_sweeps_and_budgets_of_latency(tmp_path, monkeypatch):
    ids, module = torch.randint(0, 20, (1, 8)), Tagger().eval()
    plan = peelcli.plan(module, ids, flops="80%")
    peelcli.apply(module, plan, ids, out=tmp_path / "applied.onnx", dynamic="1:length", opset=18)
    ways = run.Ways(tmp_path / "sweep", bench=True)
    monkeypatch.setattr(run, "BENCH_SECONDS", 0.2)
    found = run.sweep(module, ids, ways=ways, flops="80%", dynamic="1:length", opset=18)
    assert found.bench
    peelcli.prune(module, ids, out=tmp_path / "timed.onnx", latency="10s", flops="80%", dynamic="1:length", opset=18)
    for path in (tmp_path / "applied.onnx", *(tmp_path / "sweep").glob("*.onnx"), tmp_path / "timed.onnx"):
        model = onnx.load(path)
        assert model.opset_import[0].version == 18
        assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"], path
    with pytest.raises(UsageError, match=r"how \.onnx files are written goes with --bench"):
        run.sweep(module, ids, ways=run.Ways(tmp_path / "other"), flops="80%", opset=18)


def test_exported_programs_leave_them_open_too(tmp_path):
    asked = ["image=2:height,3:width", "other=2:height,3:width"]
    out = [tmp_path / "slim.pt2", tmp_path / "slim.onnx"]
    slim, run_ = peelcli.prune(Segmenter().eval(), IMAGES, out=out, flops="80%", dynamic=asked)
    told = {check.name: (check.ok, check.note) for check in run_.checks}
    assert told["pt2_dynamic_sizes"] == told["dynamic_sizes"] == (True, "height, width")
    assert told["pt2_dynamic_batch"] == (True, "batch sizes 1, 2, 3")
    again = torch.export.load(out[0]).module(check_guards=False)
    given = [torch.randn(2, 3, 40, 18) for _ in range(2)]
    torch.testing.assert_close(again(*given), slim(*given))


def test_exported_programs_that_can_not_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"^height can't stay open: "):
        peelcli.prune(Fixed().eval(), torch.randn(1, 3, 8, 8), out=tmp_path / "a.pt2", flops="80%", dynamic="2:height")
    assert not list(tmp_path.iterdir())
