"""Sizes that an ONNX file leaves open: they stay open in the pruned one, where that works."""

from __future__ import annotations

import contextlib

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import peelcli
from peelcli.deadlines import meet
from peelcli.errors import CheckFailed
from peelcli.sweeps import run


class Segmenter(nn.Module):
    """A map as large as the image; two inputs of one size."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.body = nn.Conv2d(16, 24, 3, padding=1)
        self.head = nn.ConvTranspose2d(24, 2, 2, stride=2)

    def forward(self, image, other):
        return self.head(self.body(self.stem(image - other).relu()).relu())


class Tagger(nn.Module):
    """A label for each word."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.body = nn.Linear(16, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, ids):
        x = self.words(ids)
        return self.head((x - x.mean(1, keepdim=True) + self.body(x).relu()[..., :16]).repeat(1, 1, 2))


class Fixed(nn.Module):
    """Whatever its file says, its head fits one size."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16 * 8 * 8, 4)

    def forward(self, image):
        return self.head(self.stem(image).relu().flatten(1))


def exported(module, inputs, axes, path):
    """The file of torch's older exporter, which takes a name for each size that is to be open."""
    names = [name for name in axes if name != "y"]
    torch.onnx.export(
        module.eval(), inputs, path, dynamo=False, input_names=names, output_names=["y"], dynamic_axes=axes
    )


def pruned(path, **settings):
    """The slim module, the run's checks by name, and a session of the slim file."""
    out = path.with_name("slim.onnx")
    slim, run = peelcli.prune(path, out=out, flops="60%", **settings)
    return slim, {check.name: check for check in run.checks}, onnxruntime.InferenceSession(out)


IMAGE = {0: "n", 2: "height", 3: "image width"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "inputs", "axes", "shape", "sizes"),
    [
        pytest.param(
            Segmenter(), (torch.randn(1, 3, 16, 16),) * 2, {"left": IMAGE, "right": IMAGE, "y": {0: "n"}},
            (2, 3, 24, 40), ["batch", 3, "height", "image_width"], id="images",
        ),
        pytest.param(
            Tagger(), (torch.randint(0, 20, (1, 8)),), {"ids": {0: "batch", 1: "length"}, "y": {0: "batch"}},
            (3, 5), ["batch", "length"], id="words",
        ),
        pytest.param(
            Tagger(), (torch.randint(0, 20, (1, 8)),), {"ids": {0: "s0", 1: "s1"}, "y": {0: "s0"}},
            (3, 5), ["batch", "size_s1"], id="names that the exporter makes itself",
        ),
    ],
)  # fmt: skip
def test_open_sizes_stay_open(module, inputs, axes, shape, sizes, tmp_path):
    exported(module, inputs, axes, tmp_path / "net.onnx")
    slim, checks, session = pruned(tmp_path / "net.onnx")
    assert checks["dynamic_sizes"].ok
    assert [value.shape for value in session.get_inputs()] == [sizes] * len(inputs)
    draw = np.random.default_rng(0)
    kind = np.float32 if inputs[0].is_floating_point() else np.int64
    feed = {value.name: draw.integers(0, 20, shape).astype(kind) for value in session.get_inputs()}
    wanted = slim(*map(torch.from_numpy, feed.values())).detach().numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_size_that_is_open_in_name_only_is_fixed_and_it_is_said(tmp_path):
    exported(Fixed(), (torch.randn(1, 3, 8, 8),), {"x": IMAGE, "y": {0: "n"}}, tmp_path / "net.onnx")
    _, checks, session = pruned(tmp_path / "net.onnx", input="1,3,8,8")
    assert checks["dynamic_batch"].ok
    assert checks["dynamic_sizes"].ok is None
    assert "all but the batch are fixed: the model itself fails at other sizes" in checks["dynamic_sizes"].note
    assert session.get_inputs()[0].shape == ["batch", 3, 8, 8]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_times_such_files_says_the_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(meet, "SECONDS", 0.1)
    monkeypatch.setattr(run, "BENCH_SECONDS", 0.1)
    images = (torch.randn(1, 3, 16, 16),) * 2
    exported(Segmenter(), images, {"left": IMAGE, "right": IMAGE, "y": {0: "n"}}, tmp_path / "net.onnx")
    sizes = ("1,3,32,48", "1,3,32,48")
    found = run.sweep(tmp_path / "net.onnx", ways=run.Ways(tmp_path / "sweep", bench=True), flops="50%", input=sizes)
    assert found.bench[0].inputs == ("left=1x3x32x48", "right=1x3x32x48")
    with contextlib.suppress(CheckFailed):  # in so short a time, beside others
        peelcli.prune(tmp_path / "net.onnx", latency="90%", input=sizes, out=tmp_path / "slim.onnx")
