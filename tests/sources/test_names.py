"""Models by name; nothing is downloaded."""

import builtins
import importlib
import socket

import pytest
import torch

from peelcli.errors import SourceError
from peelcli.sources import names
from peelcli.sources.inputs import guess


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("something wants the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("spec", "millions", "origin"),
    [
        ("torchvision:mobilenet_v3_small", 2.54, "the layer features.0.0"),
        ("timm:mobilenetv3_small_050", 1.59, "timm's pretrained_cfg"),
        ("timm:mobilenetv3_small_050.lamb_in1k", 1.59, "timm's pretrained_cfg"),
        ("pytorchcv:mobilenet_wd4", 0.47, "the layer features.init_block.conv"),
    ],
)
def test_built_with_random_weights_and_an_input(spec, millions, origin):
    module, notes = names.build(spec)
    assert round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2) == millions  # as published
    assert notes == ("the weights are random (seed 0)",)
    (size,), note = guess(module)
    assert str(size) == "1x3x224x224"
    assert f"guessed from {origin}" in note


def test_the_same_weights_in_every_run():
    torch.manual_seed(3)
    first, _ = names.build("timm:test_resnet")
    torch.manual_seed(4)
    second, _ = names.build("timm:test_resnet")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_backbones_are_not_downloaded_either():
    module, _ = names.build("torchvision:lraspp_mobilenet_v3_large")
    assert hasattr(module, "backbone")


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("torchvision:resnet5", "torchvision:resnet50"),
        ("timm:mobilnetv3_small_050", "timm:mobilenetv3_small_050"),
        ("timm:hf-hub:timm/resnet18", "timm:resnet18"),
        ("pytorchcv:resnt18", "pytorchcv:resnet18"),
        ("hf:rsnet", "hf:resnet"),
    ],
)
def test_unknown_names_get_near_ones(spec, near):
    with pytest.raises(SourceError) as caught:
        names.build(spec)
    assert "has no model named" in caught.value.message
    assert near in caught.value.hint


def test_a_name_without_a_name():
    with pytest.raises(SourceError, match="timm: names no model"):
        names.build("timm:")


@pytest.mark.parametrize("package", ["torchvision", "timm", "pytorchcv", "hf"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, monkeypatch):
    real = "transformers" if package == "hf" else package

    def absent(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SourceError) as caught:
        names.build(f"{package}:x")
    assert caught.value.message == f"{real} is not installed"
    assert caught.value.hint == f"pip install {real}"


def test_a_package_that_breaks_on_import(monkeypatch):
    def broken(name, *_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(SourceError, match="can't be imported: RuntimeError: operator torchvision::nms does not exist"):
        names.build("torchvision:resnet18")


@pytest.fixture(scope="module")
def small():
    """A small transformers ResNet: its config and its module."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return config, transformers.ResNetForImageClassification(config)


def test_a_config_by_name_gets_a_head():
    module, notes = names.build("hf:resnet")
    assert type(module).__name__ == "ResNetForImageClassification"
    assert notes == ("the weights are random (seed 0)",)


def test_a_local_folder_with_a_config(small, tmp_path):
    small[0].save_pretrained(tmp_path)
    module, notes = names.build(f"hf:{tmp_path}")
    assert type(module).__name__ == "ResNetForImageClassification"
    assert module.config.num_labels == 5
    assert notes == ("the weights are random (seed 0)",)


def test_a_local_folder_with_weights(small, tmp_path):
    small[1].save_pretrained(tmp_path)
    module, notes = names.build(f"hf:{tmp_path}")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), small[1].parameters(), strict=True))
    assert notes == (f"weights taken from {tmp_path.name}",)


def test_a_config_that_names_something_else_than_a_model(small, tmp_path):
    small[0].save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"architectures": ["pipeline"],', 1))
    assert type(names.build(f"hf:{tmp_path}")[0]).__name__ == "ResNetForImageClassification"


def test_hub_names_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(SourceError) as caught:
        names.build("hf:microsoft/resnet-50")
    assert "downloads nothing" in caught.value.message
    assert "hf download microsoft/resnet-50" in caught.value.hint
    with pytest.raises(SourceError, match=r"has no config\.json"):
        names.build(f"hf:{tmp_path}")


def test_a_folder_whose_model_is_code_is_refused(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}'
    )
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    with pytest.raises(SourceError, match="can't be built"):
        names.build(f"hf:{tmp_path}")
    assert not (tmp_path / "mark").exists()
