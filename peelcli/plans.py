"""Plans as files: readable, made to be diffed, the same byte for byte each time.

One slice is one line, kept channels are ranges ("0-3,5,8-11"): a diff of two plans shows the groups that changed.
Which entries of a tensor belong to which channel is written in the shortest of four ways, see `index_map`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from peelcli.errors import PlanError
from peelcli.ranges import MOST_CHANNELS, Rows, blocks, from_ranges, index_map, to_ranges
from peelcli.records import Attribute, Blend, Costs, Cut, Group, Limit, Locked, ModelId, Plan, Role, Slice

VERSION = 1
SCORE_DIGITS = 6
LINE = 100  # leaves longer than this are broken up
_HINT = "make it again with `peel plan`"

# --- writing ----------------------------------------------------------------------------------------------------------


def rounded(score: float) -> float:
    """A score as plans carry it: six significant digits, so that a last bit never changes a plan."""
    return float(f"{score:.{SCORE_DIGITS}g}")


def to_json(plan: Plan) -> str:
    """Write a plan as JSON text that ends in a newline.

    Scores are rounded to six significant digits, so a plan comes back equal if its scores are `rounded`.
    """
    settings = dict(plan.settings)
    assert len(settings) == len(plan.settings), "a setting is named twice"
    data = {
        "peel_plan": VERSION,
        "model": asdict(plan.model),
        "inputs": list(plan.inputs),
        "settings": settings,
        "budget": [asdict(limit) for limit in plan.budget],
        "before": asdict(plan.before),
        "predicted": asdict(plan.predicted),
        "notes": list(plan.notes),
        "groups": [_group(cut) for cut in plan.cuts],
    }
    return _layout(data, 0) + "\n"


def _group(cut: Cut) -> dict[str, Any]:
    group = cut.group
    assert math.isfinite(cut.score), f"the score of {group.name} is {cut.score}"
    assert all(len(piece.indices) == group.full for piece in group.slices), f"a slice of {group.name} is not complete"
    data: dict[str, Any] = {
        "name": group.name,
        "full": group.full,
        "width": cut.width,
        "step": group.step,
        "floor": group.floor,
        "score": rounded(cut.score),
        "keep": to_ranges(cut.kept),
    }
    if group.locked is not None:
        data["locked"] = asdict(group.locked)
    if group.bundles != blocks(group.full, 0, 1):
        data["bundles"] = {"count": len(group.bundles), **index_map(group.bundles)}
    data["layers"] = list(group.layers)
    data["slices"] = [
        {"tensor": piece.tensor, "dim": piece.dim, "role": piece.role, **index_map(piece.indices)}
        for piece in group.slices
    ]
    attributes = [asdict(attribute) for attribute in group.attributes]
    data["attributes"] = [{key: value for key, value in a.items() if value is not None} for a in attributes]
    if group.blends:
        data["blends"] = [_blend(blend) for blend in group.blends]
    return data


def _blend(blend: Blend) -> dict[str, Any]:
    operands = ";".join(f"{argument}:{dim}" for argument, dim in blend.operands)
    return {"op": blend.op, "call": blend.call, "operands": operands, "out": blend.out, **index_map(blend.indices)}


def _layout(value: Any, depth: int, listed: bool = False) -> str:
    """JSON with a line for each leaf: a scalar, a flat object inside a list, anything flat and short."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    is_flat = not any(isinstance(item, (dict, list)) for item in items)
    if not items or (is_flat and (2 * depth + len(flat) <= LINE or (listed and isinstance(value, dict)))):
        return flat
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        lines = [f"{json.dumps(k, ensure_ascii=False)}: {_layout(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{outer}}}"
    lines = [_layout(item, depth + 1, listed=True) for item in value]
    return "[\n" + ",\n".join(inner + line for line in lines) + f"\n{outer}]"


# --- reading ----------------------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
Name = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Map(_Strict):
    offset: Count = 0
    repeat: Channels = 1
    columns: str | None = None
    rows: str | None = None

    def rows_of(self, count: int) -> Rows:
        """The inverse of `index_map` for `count` channels."""
        if self.columns is not None and self.rows is not None:
            raise ValueError("its indices are given twice")
        if self.columns is not None:
            columns = [from_ranges(text, count) for text in self.columns.split(";")]
            if any(len(column) != count for column in columns):
                raise ValueError(f"its columns do not name {count} channels")
            return tuple(zip(*columns, strict=True))
        if self.rows is not None:
            rows = tuple(from_ranges(text) for text in self.rows.split(";"))
            if len(rows) != count:
                raise ValueError(f"it has rows for {len(rows)} of {count} channels")
            return rows
        if count * self.repeat > MOST_CHANNELS:
            raise ValueError(f"{count} channels of {self.repeat} entries each are more than any tensor has")
        return blocks(count, self.offset, self.repeat)


class _Slice(_Map):
    tensor: Name
    dim: Count
    role: Role


class _Bundles(_Map):
    count: Channels


class _Blend(_Map):
    op: Name
    call: Count
    operands: Annotated[str, StringConstraints(pattern=r"^\d{1,3}:-?\d{1,3}(;\d{1,3}:-?\d{1,3})*$")]
    out: Annotated[int, Field(ge=-1, le=64)]


class _Attribute(_Strict):
    module: str
    name: Name
    item: Count | None = None
    per_bundle: int


class _Locked(_Strict):
    reason: str
    remedy: str = ""


class _Group(_Strict):
    name: str
    full: Channels
    width: Positive
    step: Positive
    floor: Positive
    score: Annotated[float, Field(allow_inf_nan=False)]
    keep: str
    locked: _Locked | None = None
    bundles: _Bundles | None = None
    layers: list[str]
    slices: list[_Slice]
    attributes: list[_Attribute]
    blends: list[_Blend] = []


class _Model(_Strict):
    name: str
    architecture: str
    weights: str


class _Costs(_Strict):
    macs: Count
    params: Count
    thop_macs: Count


class _Limit(_Strict):
    count: Literal["macs", "thop_macs", "params"]
    bound: Positive


class _Plan(_Strict):
    peel_plan: int
    model: _Model
    inputs: list[str]
    settings: dict[str, str]
    budget: list[_Limit]
    before: _Costs
    predicted: _Costs
    notes: list[str]
    groups: list[_Group]


def read(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: there is no such file, or no plan in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is no plan: it is not a text file", hint=_HINT) from error
    except OSError as error:
        raise PlanError(f"the plan {path} can't be read: {(error.strerror or str(error)).lower()}", _HINT) from error
    return from_json(text, str(path))


def from_json(text: str, what: str = "this") -> Plan:
    """Read what `to_json` wrote, and believe nothing.

    Args:
        text: the JSON text.
        what: how the text is called in messages, e.g. the path that it came from.

    Raises:
        PlanError: what is wrong, with the group that it is wrong in.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise PlanError(f"{what} is no plan: it is not JSON ({place})", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{what} is no plan: it is not JSON ({error})", hint=_HINT) from error
    if not isinstance(data, dict) or "peel_plan" not in data:
        raise PlanError(f'{what} is JSON, but no plan: it has no field "peel_plan"', hint=_HINT)
    if data["peel_plan"] != VERSION or isinstance(data["peel_plan"], bool):
        raise PlanError(
            f"{what} is a plan of version {data['peel_plan']!r}; this peel reads version {VERSION}",
            hint="make it again with `peel plan`, or use the peel that it was made with",
        )
    try:
        raw = _Plan.model_validate(data)
    except ValidationError as error:
        raise PlanError(f"{what} is a corrupted plan: {_first(error, data)}", hint=_HINT) from error
    return _build(raw, what)


def seed(plan: Plan) -> int:
    """The seed that a plan was made with, 0 where it does not say."""
    text = dict(plan.settings).get("seed", "")
    return int(text) if text.isdecimal() else 0


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _first(error: ValidationError, data: dict[str, Any]) -> str:
    """The first thing that is wrong, in words: "group 'conv1': slices[2].dim: Input should be a valid integer"."""
    detail = error.errors(include_url=False, include_input=False)[0]
    where, place = list(detail["loc"]), ""
    if where[0] == "groups" and len(where) > 1 and isinstance(where[1], int):
        entry = data["groups"][where[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        place = f"group {name!r}: " if isinstance(name, str) else f"group {where[1]}: "
        where = where[2:]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}{path}{': ' if path else ''}{str(detail['msg']).lower()}{more}"


def _build(raw: _Plan, what: str) -> Plan:
    names: set[str] = set()
    cuts: list[Cut] = []
    for group in raw.groups:
        try:
            if group.name in names:
                raise ValueError("there are two groups of this name")
            cuts.append(_cut(group))
        except ValueError as error:
            raise PlanError(f"{what} is a corrupted plan: group {group.name!r}: {error}", hint=_HINT) from error
        names.add(group.name)
    return Plan(
        model=ModelId(**dict(raw.model)),
        inputs=tuple(raw.inputs),
        settings=tuple(raw.settings.items()),
        budget=tuple(Limit(**dict(limit)) for limit in raw.budget),
        before=Costs(**dict(raw.before)),
        predicted=Costs(**dict(raw.predicted)),
        cuts=tuple(cuts),
        notes=tuple(raw.notes),
    )


def _cut(raw: _Group) -> Cut:
    """One group, checked.

    Raises:
        ValueError: what is wrong with it.
    """
    if raw.floor > raw.full:
        raise ValueError(f"its floor is {raw.floor}, more than its {raw.full} channels")
    group = Group(
        name=raw.name,
        layers=tuple(raw.layers),
        full=raw.full,
        step=raw.step,
        floor=raw.floor,
        bundles=blocks(raw.full, 0, 1) if raw.bundles is None else raw.bundles.rows_of(raw.bundles.count),
        slices=tuple(_slice(piece, raw.full) for piece in raw.slices),
        attributes=tuple(Attribute(**dict(a)) for a in raw.attributes),
        locked=None if raw.locked is None else Locked(**dict(raw.locked)),
        blends=tuple(_mixing(blend, raw.full) for blend in raw.blends),
    )
    _check_bundles(group)
    kept = from_ranges(raw.keep, raw.full)
    _check_kept(group, raw.width, kept)
    return Cut(group, raw.width, kept, raw.score)


def _slice(raw: _Slice, full: int) -> Slice:
    try:
        return Slice(raw.tensor, raw.dim, raw.role, raw.rows_of(full))
    except ValueError as error:
        raise ValueError(f"the slice of {raw.tensor}: {error}") from error


def _mixing(raw: _Blend, full: int) -> Blend:
    operands = tuple(tuple(map(int, pair.split(":"))) for pair in raw.operands.split(";"))
    return Blend(raw.op, raw.call, operands, raw.out, raw.rows_of(full))  # type: ignore[arg-type]


def _check_bundles(group: Group) -> None:
    if len({len(bundle) for bundle in group.bundles}) > 1:
        raise ValueError("its bundles have different sizes")
    if sorted(channel for bundle in group.bundles for channel in bundle) != list(range(group.full)):
        raise ValueError(f"its bundles do not hold each of its {group.full} channels once")


def _check_kept(group: Group, width: int, kept: Sequence[int]) -> None:
    if width != len(kept):
        raise ValueError(f"its width is {width}, but {len(kept)} channels are kept")
    if width not in group.legal_widths():
        raise ValueError(f"its width {width} is none of its legal widths")
    if any(low >= high for low, high in itertools.pairwise(kept)):
        raise ValueError("its kept channels are not in ascending order")
    if kept[-1] >= group.full:
        raise ValueError(f"channel {kept[-1]} is kept, but it has only {group.full}")
    stay = set(kept)
    for bundle in group.bundles:
        if 0 < sum(channel in stay for channel in bundle) < len(bundle):
            raise ValueError(f"channels {to_ranges(bundle)} go only together, but only some of them are kept")
