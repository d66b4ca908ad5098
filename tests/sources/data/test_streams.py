"""Data that is read each time it is wanted."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.sources.data import load_samples, stream, streams

PLAIN = Calibration(mean=(0.0,), std=(1.0,))


class Vectors:
    def __init__(self, count=9, width=7):
        self.rows = torch.arange(count * width).view(count, width)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return self.rows[at].float(), at % 3


@pytest.fixture
def folder(tmp_path):
    for number in range(10):
        path = tmp_path / "eel" / f"{number}.png" if number % 2 else tmp_path / "cat" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(path)
    return tmp_path


def test_a_data_set_gives_its_samples_by_position(vectors):
    found = stream(Vectors(), vectors, PLAIN)
    (x,), target = found.read(4)
    assert (x.tolist(), target) == ([[28.0, 29.0, 30.0, 31.0, 32.0, 33.0, 34.0]], 1)
    assert (len(found), found.labelled, found.steady) == (9, True, False)
    assert [found.read(at)[1] for at in (2, 0)] == [2, 0]


def test_what_holds_its_samples_already_is_no_stream(vectors):
    for data in (torch.zeros(4, 7), [torch.zeros(7)] * 4, (x for x in ())):
        assert stream(data, vectors, PLAIN) is None


def test_a_data_set_that_does_not_fit_is_refused_before_it_is_used(vectors):
    with pytest.raises(InputError, match="does not fit the model"):
        stream(Vectors(width=5), vectors, PLAIN)


def test_a_small_folder_is_read_whole_and_a_large_one_as_it_goes(folder, pictures, monkeypatch):
    assert stream(folder, pictures, PLAIN) is None
    monkeypatch.setattr(streams, "MOST_BYTES", 1000)
    found = stream(str(folder), pictures, PLAIN)
    whole = load_samples(folder, pictures, PLAIN)
    assert (len(found), found.steady) == (10, True)
    for position in range(10):
        inputs, target = found.read(position)
        assert torch.equal(inputs[0], whole.inputs[position][0])
        assert target == whole.targets[position]
    assert any("labels are the 2 subfolders" in note for note in found.notes)


def test_a_damaged_image_is_passed_over(folder, pictures, monkeypatch):
    monkeypatch.setattr(streams, "MOST_BYTES", 1000)
    (folder / "cat" / "0.png").write_bytes(b"no image")
    found = stream(folder, pictures, PLAIN)
    assert torch.equal(found.read(0)[0][0], found.read(1)[0][0])


def test_the_digest_tells_folders_apart(folder, pictures, monkeypatch):
    monkeypatch.setattr(streams, "MOST_BYTES", 1000)
    before = stream(folder, pictures, PLAIN).digest
    assert stream(folder, pictures, PLAIN).digest == before
    (folder / "cat" / "0.png").rename(folder / "eel" / "0.png")
    assert stream(folder, pictures, PLAIN).digest != before
