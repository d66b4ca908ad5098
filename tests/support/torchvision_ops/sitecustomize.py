"""Let `import torchvision` work where its compiled operators do not fit the torch at hand.

torchvision registers Python parts of its operators on import and fails where the compiled parts are absent. The models
need none of them, so it is enough to declare their signatures first. The package itself never does this: it is the
tests' machine that is odd. Put this folder on PYTHONPATH and Python runs the file at start; torch is loaded only when
somebody imports torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_BOX = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SUPPRESS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
SIGNATURES = {
    "nms": _SUPPRESS,
    "qnms": _SUPPRESS,
    "roi_align": f"({_BOX}, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": f"({_BOX}) -> (Tensor, Tensor)",
    "ps_roi_align": f"({_BOX}, int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool": f"({_BOX}) -> (Tensor, Tensor)",
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
}
_kept = []  # a Library takes its definitions back when it is collected


def _compiled_operators_load(spec: ModuleSpec) -> bool:
    import torch

    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for file in (file for folder in folders for file in folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(file))
        except OSError:
            return False
        return True
    return False


def declare(spec: ModuleSpec) -> None:
    """Declare what `spec`, torchvision's own, can't bring along."""
    import torch

    if _kept or _compiled_operators_load(spec):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, signature in SIGNATURES.items():
        library.define(name + signature)
    _kept.append(library)


class DeclareFirst:
    """A finder that finds nothing: it is asked before torchvision is imported, and that is all it is for."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            spec = PathFinder.find_spec(name, path)
            if spec is not None:
                declare(spec)


def install() -> None:
    """Ask DeclareFirst about every import from now on; once, even where this file runs under two names."""
    if not any(getattr(finder, "__name__", "") == DeclareFirst.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, DeclareFirst)


install()
