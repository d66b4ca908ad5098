"""Whether a file that peel wrote can be read to its end."""

from __future__ import annotations

import ast
import json
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from safetensors import safe_open


def _onnx(path: Path) -> None:
    onnx.checker.check_model(path, full_check=True)


def _torch(path: Path) -> None:
    torch.load(path, map_location="cpu", weights_only=False)  # these tests made it


def _exported(path: Path) -> None:
    torch.export.load(path)


def _safetensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        assert [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - it is no dict


def _json(path: Path) -> None:
    json.loads(path.read_text("utf-8"))


def _lines(path: Path) -> None:
    assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())


def _xml(path: Path) -> None:
    xml.dom.minidom.parse(str(path))


def _html(path: Path) -> None:
    assert path.read_text("utf-8").rstrip().endswith("</html>")


def _python(path: Path) -> None:
    ast.parse(path.read_text("utf-8"))


def _text(path: Path) -> None:
    assert path.read_text("utf-8").endswith("\n")


READERS: dict[str, Callable[[Path], None]] = {
    ".onnx": _onnx,
    ".pt": _torch,
    ".pt2": _exported,
    ".safetensors": _safetensors,
    ".json": _json,
    ".jsonl": _lines,
    ".xml": _xml,
    ".svg": _xml,
    ".html": _html,
    ".py": _python,
    ".md": _text,
    ".txt": _text,
}


def problem(path: Path) -> str:
    """What is wrong with a file, "" where it is whole."""
    try:
        READERS[path.suffix](path)
    except Exception as error:  # whatever a reader raises on half a file
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""
