"""The folder of a sweep: points that are done stay done when a run is killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from peelcli import files
from peelcli.errors import UsageError
from peelcli.points import Point
from peelcli.sweeps.work import Files

_KEY = "sweep.key.json"
_CHOICE = "sweep.choice.json"
_POINT: TypeAdapter[Point] = TypeAdapter(Point)


class Store:
    """Points as files `LABEL.point.json`, `LABEL.plan.json` and `LABEL.onnx`; each is whole or absent.

    Attributes:
        folder: it exists.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Open a folder, or make it.

        Args:
            folder: where the points are.
            key: what the points depend on beside their budget.

        Raises:
            UsageError: the folder holds a sweep of something else, or can't be written.
        """
        self.folder = folder
        text = json.dumps(dict(key), indent=2, sort_keys=True) + "\n"
        path = folder / _KEY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = path.read_text("utf-8") if path.exists() else None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{folder} can't be used: {error}", hint="choose another folder with --out") from error
        if before is None:
            files.write_text_atomically(path, text)
        elif before != text:
            raise UsageError(
                f"{folder} holds a sweep of {_difference(before, key)}",
                hint="choose another folder with --out, or remove this one",
            )

    def choice(self) -> dict[str, Any]:
        """The settings of the allocation that the points there were made with; empty where none was chosen."""
        try:
            found = json.loads((self.folder / _CHOICE).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def keep_choice(self, chosen: Mapping[str, Any]) -> None:
        """Remember it, so that points that are added later are of the same curve."""
        files.write_text_atomically(self.folder / _CHOICE, json.dumps(dict(chosen)) + "\n")

    def find(self, label: str, with_onnx: bool) -> Point | None:
        """A point that is done, None where it or one of its files is missing."""
        path = self.folder / f"{label}.point.json"
        try:
            point = _POINT.validate_python(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, RecursionError, ValidationError):
            return None
        needed = [point.plan, f"{label}.onnx" if with_onnx else ""]
        return point if point.failed or all((self.folder / name).is_file() for name in needed if name) else None

    def keep(self, label: str, point: Point, made: Files) -> None:
        """Write a point: its files first, so that a point that is there is whole."""
        for name, content in made.items():
            with files.staged([self.folder / name]) as (temporary,):
                files.write_bytes(temporary, content)
        files.write_text_atomically(self.folder / f"{label}.point.json", json.dumps(asdict(point), indent=2) + "\n")


def _difference(before: str, key: Mapping[str, Any]) -> str:
    """What differs, in words."""
    try:
        old = json.loads(before)
    except (ValueError, RecursionError):
        old = None
    if not isinstance(old, dict):
        return "something else"
    changed = [name for name in {**old, **key} if old.get(name) != json.loads(json.dumps(key.get(name)))]
    if "weights" in changed or "architecture" in changed:
        return "another model"
    return f"other settings: {', '.join(sorted(changed))}" if changed else "something else"
