"""JSON schemas of what peel prints, for those who read it with other tools; `make schemas` writes them to docs/."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from peelcli.report.overview import Document
from peelcli.report.record import Record

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[str, tuple[str, type[BaseModel]]] = {
    "run.schema.json": ("The record of a run: peel prune, plan and apply, --output-format json", Record),
    "report.schema.json": ("A report: peel report --output-format json", Document),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Each schema by the name of its file. Keys that it does not name are allowed: new ones need no new version."""
    return {
        name: {"$schema": _DIALECT, **model.model_json_schema(), "title": title}
        for name, (title, model) in _MODELS.items()
    }


def texts() -> dict[str, str]:
    """The same as the files hold it."""
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas().items()}
