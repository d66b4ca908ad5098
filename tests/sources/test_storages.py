"""Tensors of TorchScript archives that claim more than their records hold."""

from __future__ import annotations

import io
import pickletools
import zipfile

import pytest
import torch
from torch import nn

from peelcli.errors import SourceError
from peelcli.sources import archive
from peelcli.sources.scan import Storage, scan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def script(tmp_path):
    """A layer of 4x3 and 4 numbers."""
    torch.jit.save(torch.jit.trace(nn.Linear(3, 4), torch.zeros(2, 3)), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def changed(path, change):
    """The archive with its records as `change` leaves them, by the end of their names."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    for name, content in change(records).items():
        records[name] = content
    with zipfile.ZipFile(path, "w") as file:
        for name, content in records.items():
            file.writestr(name, content)
    return path


def test_a_script_as_torch_writes_it_passes(script):
    archive.check_script(script)
    with zipfile.ZipFile(script) as file:
        found = scan(io.BytesIO(file.read("net/data.pkl")))
    assert {(storage.kind, storage.entries) for storage in found.storages} == {
        ("FloatStorage", 12),
        ("FloatStorage", 4),
    }
    assert (Storage("FloatStorage", "0", 12), 0, (4, 3), (3, 1)) in found.views


def test_a_record_that_is_too_short_is_refused(script):
    """torch.jit.load would read on behind it, or crash."""
    changed(script, lambda records: {"net/data/0": records["net/data/0"][:-4]})
    with pytest.raises(SourceError, match="truncated or damaged"):
        archive.check_script(script)


def test_a_view_behind_the_end_of_its_record_is_refused(script):
    def widen(records):
        program = bytearray(records["net/data.pkl"])
        sizes = [place for op, argument, place in pickletools.genops(bytes(program)) if argument == 3]
        program[sizes[0] + 1] = 200  # a 4x3 tensor becomes 4x200
        return {"net/data.pkl": bytes(program)}

    changed(script, widen)
    with pytest.raises(SourceError, match="truncated or damaged"):
        archive.check_script(script)


def test_a_record_that_is_not_there_is_refused(script):
    changed(script, lambda records: {"net/data.pkl": records["net/data.pkl"].replace(b"FloatStorage", b"NoStoragexxx")})
    with pytest.raises(SourceError, match="truncated or damaged"):
        archive.check_script(script)
