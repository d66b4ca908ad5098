"""What a file is goes by its content, never by its suffix."""

import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from peelcli.errors import SourceError
from peelcli.sources.sniff import Kind, sniff


@pytest.fixture(scope="module")
def module():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()


def test_torch_checkpoints(module, tmp_path):
    torch.save(module, tmp_path / "a.onnx")
    torch.save(module.state_dict(), tmp_path / "b", _use_new_zipfile_serialization=False)
    assert sniff(tmp_path / "a.onnx") is Kind.TORCH_ZIP
    assert sniff(tmp_path / "b") is Kind.TORCH_LEGACY


def test_the_other_containers(module, tmp_path):
    example = (torch.zeros(1, 3, 8, 8),)
    torch.jit.trace(module, example).save(tmp_path / "script.pt")
    torch.export.save(torch.export.export(module, example), tmp_path / "exported.pt2")
    save_file(module.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "graph.pt").write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x062.13.0:\xfa\x15\n\xbb\x07\xff\xfe")
    kinds = [sniff(tmp_path / name) for name in ("script.pt", "exported.pt2", "weights.pt", "graph.pt")]
    assert kinds == [Kind.TORCHSCRIPT, Kind.EXPORTED, Kind.SAFETENSORS, Kind.ONNX]


def test_the_archive_that_the_older_exporter_wrote(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert sniff(tmp_path / "old.pt2") is Kind.EXPORTED


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"", "is empty", "again"),
        (b"just a note\n", "is a text file", "torch.save"),
        ("grüße".encode() * 900, "is a text file", "torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "HDF5", "state dict"),
        (b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        (b"\x00\x01\x02\x03", "no model file that peel knows (4 bytes)", "torch.save"),
        (b"PK\x03\x04 and nothing more", "truncated or damaged", "again"),
        ((999).to_bytes(8, "little") + b'{"a":', "truncated or damaged", "again"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(content, said, hint, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        sniff(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_python_file_points_to_factories(tmp_path):
    (tmp_path / "net.py").write_text("import torch\n")
    with pytest.raises(SourceError) as caught:
        sniff(tmp_path / "net.py")
    assert "net.py:FUNCTION" in caught.value.hint


def test_a_zip_without_a_model(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(2))
    with pytest.raises(SourceError, match="zip archive with no model"):
        sniff(tmp_path / "arrays.npz")


def test_no_such_file_and_directories(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        sniff(tmp_path / "model.pt")
    with pytest.raises(SourceError, match="is a directory"):
        sniff(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError) as caught:
        sniff(tmp_path)
    assert caught.value.hint.endswith(f"hf:{tmp_path}")


def test_a_pickle_that_is_written_as_text_is_a_pickle(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    assert sniff(path) is Kind.TORCH_LEGACY


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(SourceError, match="a pipe or a device"):
        sniff(tmp_path / "net.pt")
