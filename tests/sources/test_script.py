"""TorchScript archives: converted where that works, refused with the next command where not."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import nn

from peelcli.config import Source
from peelcli.errors import SourceError
from peelcli.sources.load import load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net().eval()


def refused(path, **options):
    with pytest.raises(SourceError) as caught:
        load(str(path), Source(**options))
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("how", ["trace", "script"])
def test_a_small_network(tmp_path, how):
    module = net()
    made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.randn(1, 3, 16, 16))
    made.save(tmp_path / "net.pt")
    subject = load(str(tmp_path / "net.pt"), Source(input=("1,3,16,16",)))
    assert subject.notes == ("net.pt was converted from TorchScript",)
    assert isinstance(subject.module.conv, nn.Conv2d)
    assert isinstance(subject.module.norm, nn.BatchNorm2d)
    assert isinstance(subject.module.head.weight, nn.Parameter)
    assert {n for n, _ in subject.module.named_parameters()} == {n for n, _ in module.named_parameters()}
    x = torch.randn(3, 3, 16, 16)
    assert (subject.module(x) - module(x)).abs().max() < 1e-6


def test_an_input_is_guessed_from_the_layers_in_it(tmp_path):
    torch.jit.script(net()).save(tmp_path / "net.pt")
    subject = load(str(tmp_path / "net.pt"), Source())
    assert subject.inputs[0].shape == (1, 3, 224, 224)
    assert "guessed from the layer conv" in subject.notes[0]


def test_what_can_not_be_converted_names_the_next_command(tmp_path):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while bool(x.sum() > 100.0):
                x = x / 2
            return self.a(x)

    torch.jit.script(Branch().eval()).save(tmp_path / "net.pt")
    error = refused(tmp_path / "net.pt", input=("1,3",))
    assert "can't be converted from TorchScript" in error.message
    assert "torch.export.save" in error.hint


def test_an_input_that_does_not_fit(tmp_path):
    torch.jit.trace(net(), torch.randn(1, 3, 16, 16)).save(tmp_path / "net.pt")
    error = refused(tmp_path / "net.pt", input=("1,5,16,16",))
    assert "does not run on the input 1x5x16x16: RuntimeError" in error.message
    assert "--input" in error.hint


def test_an_operator_of_a_library_that_is_not_here_is_named(tmp_path):
    torch.jit.trace(net(), torch.randn(1, 3, 16, 16)).save(tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "other.pt", "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, content.replace(b"torch.relu(", b"ops.mylib.relu("))
    error = refused(tmp_path / "other.pt", input=("1,3,16,16",))
    assert "needs the operator mylib::relu" in error.message
    assert "--code" in error.hint


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_file_that_breaks_off(tmp_path, share):
    torch.jit.script(net()).save(tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(len(content) * share)])
    assert "truncated or damaged" in refused(tmp_path / "cut.pt").message


def test_a_bomb_is_not_inflated(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("net/constants.pkl", b"", zipfile.ZIP_STORED)
        with archive.open("net/code/big.py", "w") as file:
            for _ in range(300):
                file.write(bytes(2**20))
    assert "declares far more content than it holds" in refused(tmp_path / "bomb.pt").message


def test_spoiled_notes_on_source_lines_never_reach_torch(tmp_path):
    """Its reader takes their word for what they are."""
    torch.jit.trace(net(), torch.randn(1, 3, 16, 16)).save(tmp_path / "net.pt")
    spoiled = 0
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "other.pt", "w") as new:
        for entry in old.infolist():
            notes = entry.filename.endswith(".debug_pkl")
            new.writestr(entry.filename, b"\x80\x02\xa8\xa8\xa8." if notes else old.read(entry))
            spoiled += notes
    assert spoiled > 1
    good, other = (load(str(tmp_path / name), Source(input=("1,3,16,16",))) for name in ("net.pt", "other.pt"))
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(good.module(x), other.module(x))
