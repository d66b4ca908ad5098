"""The zoo's models by name: what builds each of them, with random weights and no download, and what it runs on."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from zoo_models import cv, detection, hf, image, sequence, timm_names, vision
from zoo_models.entry import Entry

FAMILIES: dict[str, dict[str, Entry]] = {
    "torchvision": {**vision.ENTRIES, **detection.ENTRIES},
    "timm": timm_names.ENTRIES,
    "transformers": hf.ENTRIES,
    "pytorchcv": cv.ENTRIES,
    "own": {**image.ENTRIES, **sequence.ENTRIES},
}
ZOO = {f"{family}/{name}": entry for family, entries in FAMILIES.items() for name, entry in entries.items()}

__all__ = ["FAMILIES", "ZOO", "Entry", "chosen"]


def chosen(only: Sequence[str] = (), families: Iterable[str] = ()) -> list[str]:
    """Names that match one of the globs (with or without the family) and belong to one of the families."""
    wanted = tuple(families) or tuple(FAMILIES)
    return [
        name
        for name in ZOO
        if name.partition("/")[0] in wanted
        and (not only or any(fnmatch.fnmatch(text, glob) for glob in only for text in (name, name.partition("/")[2])))
    ]
