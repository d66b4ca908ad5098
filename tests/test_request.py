"""What is refused before anything is loaded."""

from __future__ import annotations

import pathlib
import sys

import pytest
import torch

from peelcli import files, request
from peelcli.errors import UsageError

BUDGET = {"flops": "50%"}


class Sealed(dict):
    """Data that nobody may look into yet, not even to ask whether it is empty."""

    def __bool__(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("metric", "judge.py:top1", "--metric"), ("samples", 64, "--samples"), ("image_size", 32, "--image-size"),
        ("validation", "others", "--validation"), ("mean", [0.5], "--mean"), ("std", "0.5", "--std"),
        ("repair", "auto", "--repair"),
    ],
)  # fmt: skip
def test_what_goes_with_samples_needs_some(name, value, flag):
    with pytest.raises(UsageError) as caught:
        request.check("model.pt", {**BUDGET, name: value}, ())
    assert caught.value.message == f"{flag} goes with samples, and there are none"
    assert caught.value.hint.startswith("give --data: a folder of images")
    with pytest.raises(UsageError, match=flag):
        request.check_outputs("model.pt", {name: value}, ())
    made = request.check("model.pt", {**BUDGET, name: value, "data": "images"}, ())
    assert made.calibration.data == "images"


def test_what_is_judged_by_is_real():
    with pytest.raises(UsageError) as caught:
        request.check("model.pt", {**BUDGET, "data": "images", "validation": "synthetic"}, ())
    assert caught.value.message == "--validation takes real samples"
    with pytest.raises(UsageError, match="--validation names the samples of --data"):
        request.check("model.pt", {**BUDGET, "data": "images", "validation": "images/"}, ())
    with pytest.raises(UsageError, match="--validation goes with real samples"):
        request.check("model.pt", {**BUDGET, "data": "synthetic", "validation": "images"}, ())


def test_no_repair_is_what_happens_without_samples():
    assert request.check("model.pt", {**BUDGET, "repair": "none", "metric": None}, ()).calibration.repair == "none"


def test_data_of_python_s_own_is_not_looked_into():
    data = Sealed()
    assert request.check("model.pt", {**BUDGET, "data": data}, ()).calibration.data is data
    several = torch.zeros(4, 3)
    assert request.check("model.pt", {**BUDGET, "data": several, "samples": 2}, ()).calibration.data is several


def test_a_score_that_needs_samples():
    with pytest.raises(UsageError) as caught:
        request.check("model.pt", {**BUDGET, "score": "taylor"}, ())
    assert (caught.value.message, caught.value.hint) == (
        "the score `taylor` needs samples", "give calibration samples with --data, or --score l2"
    )  # fmt: skip
    request.check("model.pt", {**BUDGET, "score": "taylor", "data": "images"}, ())


def test_a_device_is_looked_for_where_it_is_no_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for settings in ({"device": "cuda"}, {"device": "cuda", "data": "images"}):
        with pytest.raises(UsageError, match="torch sees no CUDA device here"):
            request.check("model.pt", {**BUDGET, **settings}, ())
    with pytest.raises(UsageError, match="is no device that peel knows"):
        request.check_outputs("model.pt", {"device": "gpu"}, ())
    monkeypatch.setitem(sys.modules, "peelcli.devices", None)  # which could not be imported now
    request.check("model.pt", {**BUDGET, "device": "cpu"}, ())


# --- outputs that would replace what is read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", "here.pt"), ("validation", "here.pt"), ("weights", "here.pt"), ("weights", "./link.pt"),
        ("data", pathlib.Path("here.pt")), ("factory", "made.py:make"), ("metric", "made.py:score"),
        ("code", "made.py"), ("inputs", "made.py:inputs"), ("loss", "made.py:loss"),
    ],
)  # fmt: skip
def test_no_file_that_a_setting_names_is_written_over(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.pt").write_text("samples")
    (tmp_path / "link.pt").symlink_to("here.pt")
    (tmp_path / "made.py").write_text(f"{files.GENERATED}\n")  # only such a file may be replaced at all
    out = "made.py" if "made" in str(value) else "here.pt"
    settings = {"data": "images", "steps": 1, name: value}
    with pytest.raises(UsageError) as caught:
        request.check_lessons("model.pt", settings, out)
    assert caught.value.message == f"the output {out} is the input"
    assert caught.value.hint == "write to another name with --out"
    budget = {key: given for key, given in settings.items() if key not in ("steps", "loss")}
    if name != "loss":
        with pytest.raises(UsageError, match="is the input"):
            request.check("model.pt", {**BUDGET, **budget}, out)
    request.check_lessons("model.pt", settings, "other.pt")


def test_neither_the_original_nor_a_plan_is_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big.pt").write_text("original")
    settings = {"data": "samples.py:function", "steps": 2}
    for teacher in ("big.pt", tmp_path / "big.pt"):
        with pytest.raises(UsageError, match=r"the output big.pt is the input"):
            request.check_lessons("slim.safetensors", settings, ["slim.onnx", "big.pt"], teacher)
    for teacher in (None, torch.nn.ReLU(), "torchvision:resnet18", "a\0b", "x" * 5000):
        request.check_lessons("slim.safetensors", settings, "big.pt", teacher)
    (tmp_path / "plan.pt").write_text("{}")
    with pytest.raises(UsageError, match=r"the output plan.pt is the input"):
        request.check_applied("big.pt", "plan.pt", {}, "plan.pt")
    request.check_applied("big.pt", "slim.plan.json", {}, "slim.safetensors")  # which has the same plan beside it
    assert (tmp_path / "big.pt").read_text() == "original"


def test_the_weights_of_a_python_file_that_is_read_are_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("slim.safetensors", "own.safetensors", "own.py"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "slim.py").write_text(f"{files.GENERATED}\n")
    for model, out in (("slim.py:load", "slim.safetensors"), ("slim.py:load", "slim.py"), ("slim.py", "slim.py")):
        with pytest.raises(UsageError, match=r"the output slim.(safetensors|py) is the input"):
            request.check_outputs(model, {}, out)
    request.check_outputs("own.py:make", {}, "own.safetensors")  # nothing says that the user's own code reads these
