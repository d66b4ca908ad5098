"""Tensor files: what goes where, which types, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from peelcli.config import Calibration
from peelcli.samples import spread
from peelcli.sources.data import class_ids, collect, load_samples
from tests.support.samples import refused

USUAL = Calibration()


def values(samples):
    return torch.cat([inputs[0] for inputs in samples.inputs])


def numbered(count, *shape):
    """Samples of which each holds its own number."""
    return np.arange(count, dtype=np.float32).reshape(count, *(1 for _ in shape)) * np.ones(shape, np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".pth", ".safetensors"])
def test_one_array_goes_to_the_first_argument(tmp_path, vectors, suffix):
    path, array = tmp_path / f"data{suffix}", numbered(10, 7)
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, anything=array)
    elif suffix == ".safetensors":
        save_file({"anything": torch.from_numpy(array)}, path)
    else:
        torch.save(torch.from_numpy(array), path)
    samples = load_samples(str(path), vectors, Calibration(samples=5))
    assert values(samples)[:, 0].tolist() == spread(10, 5)
    assert [inputs[0].shape for inputs in samples.inputs] == [(1, 7)] * 5
    assert samples.targets is None
    assert samples.name == path.name


@pytest.mark.parametrize("key", ["targets", "labels", "y"])
@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_labels_by_name(tmp_path, vectors, suffix, key):
    path, x, y = tmp_path / f"data{suffix}", numbered(4, 7), np.array([3, 1, 2, 0])
    if suffix == ".npz":
        np.savez(path, x=x, **{key: y})
    elif suffix == ".pt":
        torch.save({"x": torch.from_numpy(x), key: torch.from_numpy(y)}, path)
    else:
        save_file({"x": torch.from_numpy(x), key: torch.from_numpy(y)}, path)
    samples = load_samples(path, vectors, USUAL)
    assert class_ids(samples) == [3, 1, 2, 0]


def test_arrays_without_names_go_in_order(tmp_path, vectors, two):
    np.savez(tmp_path / "pair.npz", numbered(4, 7), np.array([3, 1, 2, 0]))
    assert class_ids(load_samples(tmp_path / "pair.npz", vectors, USUAL)) == [3, 1, 2, 0]
    torch.save((torch.randn(4, 7), torch.tensor([3, 1, 2, 0])), tmp_path / "pair.pt")
    assert class_ids(load_samples(tmp_path / "pair.pt", vectors, USUAL)) == [3, 1, 2, 0]
    torch.save([torch.full((1, 7), float(n)) for n in range(2)], tmp_path / "list.pt")
    samples = load_samples(tmp_path / "list.pt", vectors, USUAL)
    assert values(samples)[:, 0].tolist() == [0, 1]


def test_several_by_forwards_names(tmp_path, two):
    ids = np.arange(20, dtype=np.int32).reshape(4, 5) % 10
    np.savez(tmp_path / "data.npz", image=numbered(4, 3, 8, 8).astype(np.float64), ids=ids, labels=np.arange(4))
    samples = load_samples(tmp_path / "data.npz", two, USUAL)
    told, image, labels, scale = samples.inputs[2]
    assert told.tolist() == [[0, 1, 2, 3, 4]]
    assert (told.dtype, image.dtype) == (torch.int64, torch.float32)
    assert image.unique().tolist() == [2]
    assert (labels, scale) == (None, 0.5)
    assert class_ids(samples) == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_floats_become_the_models(tmp_path, vectors, dtype):
    np.save(tmp_path / "x.npy", numbered(3, 7).astype(dtype))
    samples = load_samples(tmp_path / "x.npy", vectors, USUAL)
    assert values(samples).dtype == torch.float32
    assert values(samples)[:, 0].tolist() == [0, 1, 2]
    assert samples.notes == ()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32, np.uint64])
def test_integers_become_the_models(tmp_path, tokens, dtype):
    np.save(tmp_path / "x.npy", np.arange(10).reshape(2, 5).astype(dtype))
    samples = load_samples(tmp_path / "x.npy", tokens, USUAL)
    assert values(samples).dtype == torch.int64
    assert values(samples).flatten().tolist() == list(range(10))


def test_bytes_are_divided_by_255_and_that_is_told(tmp_path, vectors):
    np.save(tmp_path / "x.npy", np.full((2, 7), 51, np.uint8))
    samples = load_samples(tmp_path / "x.npy", vectors, USUAL)
    torch.testing.assert_close(values(samples), torch.full((2, 7), 0.2))
    assert samples.notes == ("samples of type uint8 were divided by 255",)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 7), np.int64), "x.npy holds int64, and the model takes float32"),
        (np.zeros((4, 7), np.complex64), "x.npy holds complex64, and the model takes float32"),
        (np.zeros((4, 8), np.float32), "sample 0 does not fit the model, which takes 2x7 (float32) and was given 1x8"),
        (np.zeros((4, 3, 7), np.float32), "was given 1x3x7 (float32): the number of dimensions differs"),
        (np.zeros((1, 7), np.float32), "x.npy: 1 sample can be used, and at least 2 are needed"),
        (np.zeros((0, 7), np.float32), "x.npy gave no samples"),
        (np.float32(3), "x.npy holds a single number"),
        (np.array(["a", "b"]), "x.npy holds <U1, not numbers"),
        (np.array([{}, 1], dtype=object), "x.npy holds pickled objects, which may run code, and none was loaded"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, vectors, array, said):
    np.save(tmp_path / "x.npy", array)
    assert said in refused(tmp_path / "x.npy", vectors, USUAL).message


def test_floats_for_a_model_of_tokens_and_tokens_out_of_range(tmp_path, tokens):
    np.save(tmp_path / "x.npy", np.zeros((4, 5), np.float32))
    assert "holds float32, and the model takes int64" in refused(tmp_path / "x.npy", tokens, USUAL).message
    np.save(tmp_path / "x.npy", np.full((4, 5), 10))
    assert "index out of range" in refused(tmp_path / "x.npy", tokens, USUAL).message


def test_samples_that_are_not_finite_are_left_out(tmp_path, vectors):
    array = numbered(5, 7)
    array[1, 3], array[4, 0] = np.nan, np.inf
    np.savez(tmp_path / "x.npz", x=array, y=np.arange(5))
    samples = load_samples(tmp_path / "x.npz", vectors, USUAL)
    assert values(samples)[:, 0].tolist() == [0, 2, 3]
    assert class_ids(samples) == [0, 2, 3]
    assert samples.notes == ("2 of 5 samples hold NaN or infinite values and were left out",)
    array[0, 0] = -np.inf
    np.save(tmp_path / "x.npy", array)
    assert "3 of 5 samples hold NaN or infinite values" in refused(tmp_path / "x.npy", vectors, USUAL).message


def test_labels_that_do_not_match(tmp_path, vectors):
    np.savez(tmp_path / "x.npz", x=numbered(5, 7), y=np.arange(4))
    said = refused(tmp_path / "x.npz", vectors, USUAL).message
    assert said == "x.npz: the numbers of samples differ: 5 of x, 4 of y"
    np.savez(tmp_path / "x.npz", numbered(5, 7), np.arange(4))
    assert "the numbers of samples differ" in refused(tmp_path / "x.npz", vectors, USUAL).message


def test_names_that_forward_does_not_have(tmp_path, two):
    np.savez(tmp_path / "x.npz", ids=np.zeros((4, 5), int), picture=numbered(4, 3, 8, 8))
    said = refused(tmp_path / "x.npz", two, USUAL).message
    assert said.startswith("x.npz holds ids, picture, but no image: forward(ids, image,")
    np.savez(tmp_path / "x.npz", ids=np.zeros((4, 5), int), image=numbered(4, 3, 8, 8), imag=np.zeros((4, 1)))
    assert "forward has no argument named imag" in refused(tmp_path / "x.npz", two, USUAL).message


def test_targets_of_another_kind_are_kept(tmp_path, vectors):
    np.savez(tmp_path / "x.npz", x=numbered(3, 7), y=np.ones((3, 2)))
    samples = load_samples(tmp_path / "x.npz", vectors, USUAL)
    assert [target.shape for target in samples.targets] == [(2,)] * 3
    assert class_ids(samples) is None


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"not a file of tensors", b"\x80\x04K\x01.", b"\x93NUMPY\x01\x00\x06\x00{'a': ("]
)
def test_damaged_files(tmp_path, vectors, name, content):
    (tmp_path / name).write_bytes(content)
    said = refused(tmp_path / name, vectors, USUAL).message
    assert "can't be read as" in said or "pickled" in said or "holds" in said


def test_a_list_in_itself_is_refused(tmp_path, vectors):
    endless = []
    endless.append(endless)
    torch.save(endless, tmp_path / "x.pt")
    assert "nested too deeply" in refused(tmp_path / "x.pt", vectors, USUAL).message


def test_a_pipe_is_not_waited_for(tmp_path, vectors):
    os.mkfifo(tmp_path / "x.npy")
    assert "a pipe or a device" in refused(tmp_path / "x.npy", vectors, USUAL).message


def test_pickled_modules_are_not_loaded(tmp_path, vectors):
    torch.save(nn.Linear(7, 3), tmp_path / "x.pt")
    said = refused(tmp_path / "x.pt", vectors, USUAL).message
    assert "x.pt holds more than tensors, and nothing in it was run" in said


@pytest.mark.parametrize("content", [3, [], {"x": torch.zeros(2, 7), "y": "words"}, {"x": {"z": torch.zeros(2, 7)}}])
def test_pt_files_of_something_else(tmp_path, vectors, content):
    torch.save(content, tmp_path / "x.pt")
    assert "not" in refused(tmp_path / "x.pt", vectors, USUAL).message


def test_a_checkpoint_by_mistake(tmp_path, two):
    torch.save(nn.Sequential(*(nn.Linear(4, 4) for _ in range(9))).state_dict(), tmp_path / "x.pt")
    assert ", ..., but no ids" in refused(tmp_path / "x.pt", two, USUAL).message


def test_the_old_format_of_torch(tmp_path, vectors):
    torch.save(torch.randn(3, 7), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert len(load_samples(tmp_path / "x.pt", vectors, USUAL)) == 3


def test_memory_is_bounded(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(collect, "MOST_BYTES", 3 * 7 * 4)
    np.save(tmp_path / "x.npy", numbered(10, 7))
    samples = load_samples(tmp_path / "x.npy", vectors, USUAL)
    assert len(samples) == 3
    assert samples.notes[0].startswith("only 3 samples could be kept: more take over")
    monkeypatch.setattr(collect, "MOST_BYTES", 7)
    assert "0 samples can be used" in refused(tmp_path / "x.npy", vectors, USUAL).message


def test_missing_and_unknown_files(tmp_path, vectors):
    (tmp_path / "data.npy").write_bytes(b"")
    (tmp_path / "data.csv").write_bytes(b"")
    (tmp_path / "own.py").write_text("")
    assert refused(tmp_path / "date.npy", vectors, USUAL).hint == f"did you mean {tmp_path / 'data.npy'}?"
    assert "no such file or folder" in refused(tmp_path / "nowhere" / "x", vectors, USUAL).message
    assert "of no kind that samples are read from" in refused(tmp_path / "data.csv", vectors, USUAL).message
    assert refused(tmp_path / "own.py", vectors, USUAL).hint.endswith("own.py:NAME")
