"""Programs of torch.export as files: loaded with their own input, and refused where they would do more than compute."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from peelcli.config import Source
from peelcli.errors import SourceError, UntrustedPickle
from peelcli.sources import exported
from peelcli.sources.load import load


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch = torch.export.Dim("batch")
    program = torch.export.export(small(), (torch.randn(2, 3, 9, 9),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def changed(saved, path, **edits):
    """The archive with some records replaced or added, by the end of their names; stored, as torch does."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        stem = old.namelist()[0].partition("/")[0]
        edits = {name.replace("__", "."): content for name, content in edits.items()}
        for entry in old.infolist():
            content, inner = old.read(entry), entry.filename.partition("/")[2]
            edit = next((edits.pop(end) for end in list(edits) if inner.endswith(end)), None)
            new.writestr(entry.filename, content if edit is None else edit(content) if callable(edit) else edit)
        for name, content in edits.items():
            new.writestr(f"{stem}/{name}", content)
    return path


def refused(path, **options):
    with pytest.raises(SourceError) as caught:
        load(str(path), Source(**options))
    error = caught.value
    assert "\n" not in error.message
    assert error.hint
    assert error.exit_code == 2
    return error.message


def test_it_brings_its_own_input(saved):
    subject = load(str(saved), Source())
    assert subject.inputs[0].shape == (2, 3, 9, 9)
    assert subject.notes == ("input 2x3x9x9 taken from net.pt2",)
    assert subject.name == "net"
    assert isinstance(subject.module.get_submodule("0"), nn.Conv2d)
    assert not subject.module.training
    x = torch.randn(3, 3, 9, 9)
    assert torch.equal(subject.module(x), small()(x))


def test_an_input_of_the_user_wins(saved):
    subject = load(str(saved), Source(input=("1,3,9,9",)))
    assert subject.inputs[0].shape == (1, 3, 9, 9)
    assert subject.notes == ()


def test_weights_for_a_factory(saved, tmp_path):
    (tmp_path / "net_for_export.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*layers)\n"
    )
    subject = load(str(saved), Source(factory=f"{tmp_path / 'net_for_export.py'}:make", input=("1,3,9,9",)))
    assert torch.equal(subject.module[0].weight, small()[0].weight)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_that_breaks_off(saved, tmp_path, share):
    content = saved.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(content[: int(len(content) * share)])
    assert "truncated or damaged" in refused(tmp_path / "cut.pt2")


def test_nothing_is_unpickled_that_would_run_code(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    with pytest.raises(UntrustedPickle, match=r"posix\.system|nt\.system"):
        exported.load(changed(saved, tmp_path / "a.pt2", **{"sample_inputs/model__pt": buffer.getvalue()}))

    def by_pickle(content):
        config = json.loads(content)
        config["config"]["0.weight"]["use_pickle"] = True
        return json.dumps(config)

    path = changed(
        saved, tmp_path / "b.pt2", **{"model_weights_config__json": by_pickle, "weights/weight_0": buffer.getvalue()}
    )
    with pytest.raises(UntrustedPickle):
        exported.load(path)

    def opaque(content):
        config = json.loads(content)
        config["config"]["x"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        return json.dumps(config)

    edits = {"model_constants_config__json": opaque, "data/constants/opaque_obj_0": pickle.dumps(Evil())}
    assert "an object that is no tensor" in refused(changed(saved, tmp_path / "c.pt2", **edits))
    assert "compiled code" in refused(changed(saved, tmp_path / "d.pt2", **{"data/aotinductor/model/a.so": b"ELF"}))
    assert not (tmp_path / "ran").exists()


def edited(old, new):
    return lambda content: content.decode().replace(old, new).encode()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("torch.ops.aten.relu.default", "torch.os.system", "calls torch.os.system, which is no operator"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default", "may do more than compute"),
        ("torch.ops.aten.relu.default", "torch.ops.mylib.relu.default", "needs the operator mylib::relu"),
        ("torch.ops.aten.relu.default", "torch.ops.higher_order.cond", "uses cond, control flow"),
        ("Symbol(", "__import__('os').system(", "has a size that is no formula"),
        ('"nn_module_stack": "', '"nn_module_stack": "__enum__', "would import code"),
    ],
)
def test_a_graph_calls_operators_only(saved, tmp_path, old, new, said):
    assert said in refused(changed(saved, tmp_path / "net.pt2", **{"models/model__json": edited(old, new)}))


def test_archives_with_tricks(saved, tmp_path):
    bomb = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", "{}")
        archive.writestr("net/data/weights/weight_0", bytes(10_000_000))
    assert "compressed, which torch never does" in refused(bomb)
    with zipfile.ZipFile(tmp_path / "out.pt2", "w") as archive:
        archive.writestr("net/models/model.json", "{}")
        archive.writestr("net/../../evil", b"")
    assert "leads out of it" in refused(tmp_path / "out.pt2")
    for content in (b"", b"[]", b"{" * 100_000, b"\xff"):
        message = refused(changed(saved, tmp_path / "json.pt2", **{"models/model__json": content}))
        assert "can't be" in message
    lying = changed(saved, tmp_path / "lying.pt2", **{"weights/weight_0": b"\0" * 4})
    assert "can't be loaded" in refused(lying) or "truncated" in refused(lying)


def test_a_tensor_beyond_all_bounds_is_never_made(tmp_path):
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x):
            return self.a(x) + torch.ones(1, 12345, 2).sum(1)

    torch.export.save(torch.export.export(Huge(), (torch.zeros(1, 2),)), tmp_path / "a.pt2")
    path = changed(tmp_path / "a.pt2", tmp_path / "b.pt2", **{"models/model__json": edited("12345", str(2**36))})
    assert "makes a tensor of" in refused(path)
