"""Folders of images: which are read, what is done to them, and what is said of it."""

from __future__ import annotations

import builtins
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from peelcli.config import Calibration
from peelcli.errors import UsageError
from peelcli.records import Subject
from peelcli.sources.data import class_ids, load_samples
from peelcli.sources.data.looks import look
from tests.support.samples import Detector, refused

PLAIN = {"mean": (0.0,), "std": (1.0,)}


def paint(path, color=(255, 0, 0), size=(16, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def taking(*shape, **more):
    net = nn.Sequential(nn.Conv2d(shape[0], 2, 3))
    for name, value in more.items():
        setattr(net, name, value)
    return Subject(net, (torch.randn(1, *shape),), "net")


def test_subfolders_are_classes(tmp_path, pictures):
    for name, color in (("dog", (0, 255, 0)), ("cat", (255, 0, 0)), ("eel", (0, 0, 255))):
        for number in range(3):
            paint(tmp_path / name / f"{number}.png", color)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    told = []
    samples = load_samples(tmp_path, pictures, Calibration(**PLAIN), lambda done, total: told.append((done, total)))
    assert samples.targets == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert class_ids(samples) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(samples.inputs[3][0], torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert samples.inputs[0][0].dtype == torch.float32
    assert "labels are the 3 subfolders, numbered by name from cat = 0 on" in samples.notes
    assert told == [(n, 9) for n in range(1, 10)]
    assert pictures.module.training
    assert int(pictures.module[1].num_batches_tracked) == 0


def test_a_flat_folder_and_one_of_folders_in_folders_have_no_labels(tmp_path, pictures):
    kinds = ("a.JPG", "b.png", "c.webp", "d.bmp", "e.tif")
    for name in kinds:
        paint(tmp_path / "flat" / name)
        paint(tmp_path / "deep" / "x" / "y" / name)
    for folder in ("flat", "deep"):
        samples = load_samples(str(tmp_path / folder), pictures, Calibration(**PLAIN))
        assert len(samples) == len(kinds)
        assert samples.targets is None
        assert class_ids(samples) is None


def test_few_of_many_are_spread_over_the_sorted_list(tmp_path, pictures):
    for name in "abcd":
        for number in range(5):
            paint(tmp_path / name / f"{number}.bmp")
    assert load_samples(tmp_path, pictures, Calibration(samples=4)).targets == (0, 1, 2, 3)


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    """24 x 48 pixels, black but for a middle third of white: at 16 / 0.875 the crop lies within it."""
    pixels = np.zeros((24, 48, 3), np.uint8)
    pixels[:, 12:36] = 255
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    samples = load_samples(tmp_path, taking(3, 16, 16), Calibration(**PLAIN))
    assert samples.inputs[0][0].shape == (1, 3, 16, 16)
    assert samples.inputs[0][0][..., 1:-1].min() == 1


def test_the_same_as_torchvision_makes_of_it(tmp_path):
    transforms = pytest.importorskip("torchvision.transforms")
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (61, 83)), ("b.png", (90, 51))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    samples = load_samples(tmp_path, taking(3, 28, 28), Calibration())
    wanted = transforms.Compose([
        transforms.Resize(32), transforms.CenterCrop(28), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    for (values,), name in zip(samples.inputs, ("a.png", "b.png"), strict=True):
        torch.testing.assert_close(values[0], wanted(Image.open(tmp_path / name).convert("RGB")))


def test_timms_config_says_how():
    cfg = {
        "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bicubic", "crop_pct": 1.0,
        "crop_mode": "squash",
    }  # fmt: skip
    how = look(taking(3, 16, 20, pretrained_cfg=cfg), Calibration())
    assert (how.mean, how.std, how.filter, how.share, how.squash) == (
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 1.0, True,
    )  # fmt: skip
    assert (how.height, how.width) == (16, 20)
    assert how.notes[0] == "images are normalised with mean 0.1,0.2,0.3 and std 0.4,0.5,0.6, as the model's config says"
    by_flags = look(taking(3, 16, 16, default_cfg=cfg), Calibration(mean="0.5", std="0.1,0.2,0.3", image_size=32))
    assert (by_flags.mean, by_flags.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert (by_flags.height, by_flags.width) == (32, 32)


@pytest.mark.parametrize(
    ("config", "mean"),
    [
        ({"model_type": "vit"}, (0.5, 0.5, 0.5)),
        ({"model_type": "swin"}, (0.485, 0.456, 0.406)),
        ({"model_type": "mobilevit"}, (0.0, 0.0, 0.0)),
        ({"model_type": "vit", "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}, (0.1, 0.2, 0.3)),
        ({"something": "else"}, (0.485, 0.456, 0.406)),
    ],
)
def test_transformers_models_by_their_type(config, mean):
    how = look(taking(3, 16, 16, config=SimpleNamespace(**config)), Calibration())
    assert how.mean == mean
    assert ("give --mean and --std" in how.notes[0]) != ("image_mean" in config)


@pytest.mark.parametrize(
    ("family", "processor"),
    [("vit", "ViT"), ("beit", "Beit"), ("siglip", "Siglip"), ("clip", "CLIP"), ("mobilenet_v2", "MobileNetV2")],
)
def test_pictures_are_prepared_as_the_family_s_own_processor_does(tmp_path, family, processor):
    transformers = pytest.importorskip("transformers")
    own = getattr(transformers, f"{processor}ImageProcessorPil", None)
    if own is None:
        own = getattr(transformers, f"{processor}ImageProcessor")
    ramp = np.linspace(0, 255, 300 * 420).reshape(300, 420).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp.T.reshape(300, 420), 255 - ramp], 2))
    for name in ("a.png", "b.png"):
        image.save(tmp_path / name)
    subject = taking(3, 224, 224, config=SimpleNamespace(model_type=family))
    samples = load_samples(tmp_path, subject, Calibration(data=tmp_path))
    wanted = torch.as_tensor(np.asarray(own()(image)["pixel_values"][0]))
    assert (samples.inputs[0][0][0] - wanted).abs().mean() < 0.01
    squeezed = any("whatever the ratio" in note for note in samples.notes)
    assert squeezed == (family in ("vit", "beit", "siglip"))


def test_what_is_assumed_is_told():
    (normal, size) = look(taking(3, 16, 16), Calibration()).notes
    assert normal == (
        "images are normalised with mean 0.485,0.456,0.406 and std 0.229,0.224,0.225, as for ImageNet; "
        "give --mean and --std if the model was trained with others"
    )
    assert size == "images are brought to 16x16, which is what the model takes"
    assert "normalised with std 0.229,0.224,0.225, as" in look(taking(3, 16, 16), Calibration(mean=0)).notes[0]
    gray = look(taking(1, 16, 16), Calibration())
    assert (gray.mean, gray.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("mode", "color"), [("RGB", (255, 255, 255)), ("L", 255), ("I;16", 65535), ("P", 0), ("1", 1)])
def test_gray_models_and_odd_modes(tmp_path, mode, color):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, color, (8, 8), mode)
    gray = load_samples(tmp_path, taking(1, 8, 8), Calibration())
    rgb = load_samples(tmp_path, taking(3, 8, 8), Calibration(**PLAIN))
    assert gray.inputs[0][0].unique().tolist() == rgb.inputs[0][0].unique().tolist() == [0.0 if mode == "P" else 1.0]


def test_channels_last_and_alpha(tmp_path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x)

    for name in ("a.png", "b.png"):
        paint(tmp_path / name, (255, 0, 0, 255), (8, 12), "RGBA")
    samples = load_samples(tmp_path, Subject(Last(), (torch.randn(1, 12, 8, 4),), "last"), Calibration())
    assert samples.inputs[0][0].shape == (1, 12, 8, 4)


def test_other_inputs_are_the_examples(tmp_path, two):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, size=(8, 8))
    samples = load_samples(tmp_path, two, Calibration(**PLAIN))
    ids, image, labels, scale = samples.inputs[0]
    assert torch.equal(ids, two.inputs[0])
    assert image[0, :, 0, 0].tolist() == [1, 0, 0]
    assert (labels, scale) == (None, 0.5)
    assert "beside the image, the model is given what its example input holds" in samples.notes


def test_detectors_take_lists(tmp_path):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name)
    detector = Subject(Detector(), ([torch.randn(3, 16, 16), torch.randn(3, 16, 16)],), "detector")
    samples = load_samples(tmp_path, detector, Calibration())
    assert [image.shape for image in samples.inputs[0][0]] == [(3, 16, 16)]


def test_some_unreadable_images_are_skipped_and_told(tmp_path, pictures):
    for number in range(6):
        paint(tmp_path / str(number % 2) / f"{number}.png")
    for name in ("0/w.png", "0/x.jpg", "1/y.png", "1/z.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    samples = load_samples(tmp_path, pictures, Calibration())
    assert samples.targets == (0, 0, 0, 1, 1, 1)
    assert "4 of 10 images could not be read and were skipped: w.png, x.jpg, y.png, ..." in samples.notes


def test_mostly_unreadable_images_are_refused(tmp_path, pictures):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name)
    for name in ("c.png", "d.png", "e.png"):
        (tmp_path / name).write_bytes(b"")
    assert "3 of 5 images can't be read: c.png, d.png, e.png" in refused(tmp_path, pictures, Calibration()).message


def test_an_empty_folder(tmp_path, pictures):
    (tmp_path / "notes.txt").write_text("no image")
    error = refused(tmp_path, pictures, Calibration())
    assert error.message.endswith("holds no images")
    assert ".png" in error.hint


def test_one_image(tmp_path, pictures):
    paint(tmp_path / "a.png")
    assert "1 sample can be used" in refused(tmp_path, pictures, Calibration()).message
    assert "is one image" in refused(tmp_path / "a.png", pictures, Calibration()).message


def test_models_that_take_no_images(tmp_path, vectors):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name)
    assert "vectors takes 2x7, which is no image" in refused(tmp_path, vectors, Calibration()).message
    assert "net takes 5 channels" in refused(tmp_path, taking(5, 16, 16), Calibration()).message


def test_a_mean_for_other_channels(tmp_path, pictures):
    paint(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"--std 0\.1,0\.2: 2 numbers for 3 channels"):
        load_samples(tmp_path, pictures, Calibration(std=(0.1, 0.2)))


def test_without_pillow(tmp_path, pictures, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert refused(tmp_path, pictures, Calibration()).hint == "pip install 'peelcli[images]'"


def test_a_link_back_to_its_own_folder(tmp_path, pictures):
    for name in ("a.png", "b.png"):
        paint(tmp_path / name)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(load_samples(tmp_path, pictures, Calibration())) == 2
