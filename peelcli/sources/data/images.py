"""A folder of images, flat or with a subfolder for each class, brought to the size and the numbers a model takes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Samples, spread
from peelcli.sources.data.collect import Collector, Progress
from peelcli.sources.data.items import Item
from peelcli.sources.data.looks import Look, example_of, look
from peelcli.tensors import tensors_in

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SHOWN = 3  # names that a note shows
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Folder:
    """The images of a folder and of all below it, read one by one.

    Attributes:
        paths: sorted.
        classes: where every image is in a direct subfolder, these by name; their places are the labels.
        look: how images are brought to the model.
    """

    def __init__(self, folder: Path, subject: Subject, options: Calibration) -> None:
        """Find the images.

        Raises:
            InputError: there are none, Pillow is missing, or the model takes no images.
        """
        _check_pillow(folder)
        self._folder, self._subject = folder, subject
        self.paths = find(folder)
        if not self.paths:
            raise InputError(
                f"{folder} holds no images", hint=f"they are looked for in all subfolders, as {', '.join(SUFFIXES)}"
            )
        self.look = look(subject, options)
        self.classes = class_folders(folder, self.paths)
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return self._folder.name or str(self._folder)

    def notes(self) -> list[str]:
        """What was assumed."""
        notes = list(self.look.notes)
        if len(tensors_in(self._subject.inputs)) > 1:
            notes.append("beside the image, the model is given what its example input holds")
        if self.classes:
            notes.append(
                f"labels are the {len(self.classes)} subfolders, numbered by name from {self.classes[0]} = 0 on"
            )
        return notes

    def item(self, path: Path) -> Item | None:
        """An image as forward's arguments, with its label; None where it can't be read."""
        picture = read(path, self.look)
        if picture is None:
            return None
        arguments = example_of(self._subject, picture, self.look.place)
        label = self._numbers[path.relative_to(self._folder).parts[0]] if self.classes else None
        return Item(arguments, label, labelled=bool(self.classes))


def from_folder(folder: Path, subject: Subject, options: Calibration, progress: Progress | None = None) -> Samples:
    """Read the images of a folder and of all below it.

    Args:
        folder: where every image is in a direct subfolder, the subfolders are the classes, numbered by name.
        subject: whose config and input say how the images are brought to it.
        options: the flags; of more images than `samples` some are read, spread over the sorted paths.
        progress: told after each image.

    Raises:
        InputError: there are no images, most can't be read, or the model takes none.
    """
    found = Folder(folder, subject, options)
    chosen = [found.paths[at] for at in spread(len(found.paths), options.samples)]
    collector = Collector(subject, found.name, len(chosen), progress)
    for text in found.notes():
        collector.note(text)
    bad: list[str] = []
    for path in chosen:
        item = found.item(path)
        if item is None:
            bad.append(path.name)
        else:
            collector.add(item)
        if not collector.wants():
            break
    _report(bad, len(chosen), collector, folder)
    return collector.finished()


def _report(bad: list[str], count: int, collector: Collector, folder: Path) -> None:
    if not bad:
        return
    shown = ", ".join(bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
    if len(bad) * 2 > count:
        raise InputError(
            f"{folder}: {len(bad)} of {count} images can't be read: {shown}", hint="look whether they open elsewhere"
        )
    collector.note(f"{len(bad)} of {count} images could not be read and were skipped: {shown}")


def _check_pillow(folder: Path) -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise InputError(f"reading the images in {folder} needs Pillow", "pip install 'peelcli[images]'") from None


def find(folder: Path) -> list[Path]:
    """All images below a folder by path; links are followed, hidden files are not."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = str(Path(here).resolve())
        if real in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(here, name) for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
    return sorted(found)


def class_folders(folder: Path, paths: list[Path]) -> list[str]:
    """The direct subfolders by name, empty ones too, where every image is in one; else none."""
    if any(len(path.relative_to(folder).parts) != 2 for path in paths):
        return []
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return names if len(names) > 1 else []


def read(path: Path, how: Look) -> Tensor | None:
    """An image as the model takes it, or None where it can't be read.

    Returns:
        Shape (1, channels, height, width), or channels last; float32.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore")
            image = _cropped(_in_mode(opened, _MODES[how.channels]), how)
    except MemoryError:
        raise
    except Exception:  # damaged files make Pillow raise anything, SyntaxError and struct.error among them
        return None
    pixels = np.asarray(image, dtype=np.float32).reshape(how.height, how.width, how.channels) / 255
    values = (torch.from_numpy(pixels) - torch.tensor(how.mean)) / torch.tensor(how.std)
    return (values if how.last else values.permute(2, 0, 1)).unsqueeze(0).contiguous()


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """In gray or colour; 16-bit gray keeps its upper eight bits, which convert() would clip."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode == "P" and mode == "RGB":  # a palette may hold transparency
        return image.convert("RGBA").convert("RGB")
    return image.convert(mode)


def _cropped(image: Image.Image, how: Look) -> Image.Image:
    """The shorter side resized, the centre cut out; an image that has the size already is left as it is."""
    from PIL import Image

    if image.size == (how.width, how.height):
        return image
    wide, high = int(how.width / how.share), int(how.height / how.share)
    if not how.squash:
        ratio = max(wide / image.width, high / image.height)
        wide, high = max(wide, int(image.width * ratio + 1e-6)), max(high, int(image.height * ratio + 1e-6))
    image = image.resize((wide, high), Image.Resampling[how.filter.upper()])
    left, top = round((wide - how.width) / 2), round((high - how.height) / 2)
    return image.crop((left, top, left + how.width, top + how.height))
