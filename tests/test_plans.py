"""Plan files: exact both ways, made to be read and diffed, and believed only after a look."""

from __future__ import annotations

import difflib
import json
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peelcli import plans
from peelcli.errors import PlanError
from peelcli.records import Attribute, Blend, Costs, Cut, Group, Limit, Locked, ModelId, Plan, Slice


def each(count: int, offset: int = 0, repeat: int = 1) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(offset + c * repeat, offset + (c + 1) * repeat)) for c in range(count))


CONV = Group(
    name="conv",
    layers=("conv", "bn", "fc"),
    full=4,
    step=1,
    floor=1,
    bundles=each(4),
    slices=(
        Slice("conv.weight", 0, "out", each(4)),
        Slice("bn.weight", 0, "out", each(4)),
        Slice("fc.weight", 1, "in", each(4, offset=8, repeat=9)),
    ),
    attributes=(Attribute("conv", "out_channels", None, 1), Attribute("ln", "normalized_shape", 0, 1)),
)
HEADS = Group(
    name="qkv",
    layers=("qkv", "proj"),
    full=4,
    step=2,
    floor=2,
    bundles=((0, 1), (2, 3)),
    slices=(
        Slice("qkv.weight", 0, "out", ((0, 4, 8), (1, 5, 9), (2, 6, 10), (3, 7, 11))),
        Slice("odd.weight", 0, "out", ((0,), (), (7, 6), (1, 2))),
    ),
    attributes=(),
    locked=None,
)
LOCKED = replace(CONV, name="head", bundles=((3, 2, 1, 0),), step=4, floor=4, locked=Locked("an output", "none"))
PLAN = Plan(
    model=ModelId("größe", "a" * 64, "b" * 64),
    inputs=("1x3x8x8",),
    settings=(("flops", "50%"), ("seed", "0")),
    budget=(Limit("macs", 1000), Limit("params", 50)),
    before=Costs(2000, 100, 2100),
    predicted=Costs(999, 50, 1050),
    cuts=(
        Cut(CONV, 3, (0, 1, 3), 0.125),
        Cut(HEADS, 2, (2, 3), 1e-05),
        Cut(LOCKED, 4, (0, 1, 2, 3), 0.0),
    ),
    notes=("made by hand",),
)
WORKED = textwrap.dedent("""\
    {
      "peel_plan": 1,
      "model": {
        "name": "größe",
        "architecture": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "weights": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
      },
      "inputs": ["1x3x8x8"],
      "settings": {"flops": "50%", "seed": "0"},
      "budget": [
        {"count": "macs", "bound": 1000},
        {"count": "params", "bound": 50}
      ],
      "before": {"macs": 2000, "params": 100, "thop_macs": 2100},
      "predicted": {"macs": 999, "params": 50, "thop_macs": 1050},
      "notes": ["made by hand"],
      "groups": [
        {
          "name": "conv",
          "full": 4,
          "width": 3,
          "step": 1,
          "floor": 1,
          "score": 0.125,
          "keep": "0-1,3",
          "layers": ["conv", "bn", "fc"],
          "slices": [
            {"tensor": "conv.weight", "dim": 0, "role": "out"},
            {"tensor": "bn.weight", "dim": 0, "role": "out"},
            {"tensor": "fc.weight", "dim": 1, "role": "in", "offset": 8, "repeat": 9}
          ],
          "attributes": [
            {"module": "conv", "name": "out_channels", "per_bundle": 1},
            {"module": "ln", "name": "normalized_shape", "item": 0, "per_bundle": 1}
          ]
        },
        {
          "name": "qkv",
          "full": 4,
          "width": 2,
          "step": 2,
          "floor": 2,
          "score": 1e-05,
          "keep": "2-3",
          "bundles": {"count": 2, "repeat": 2},
          "layers": ["qkv", "proj"],
          "slices": [
            {"tensor": "qkv.weight", "dim": 0, "role": "out", "columns": "0-3;4-7;8-11"},
            {"tensor": "odd.weight", "dim": 0, "role": "out", "rows": "0;;7,6;1-2"}
          ],
          "attributes": []
        },
    """)


def test_a_plan_worked_by_hand():
    text = plans.to_json(PLAN)
    assert text[: len(WORKED)] == WORKED
    assert text.endswith("}\n")
    assert json.loads(text)["groups"][2]["locked"] == {"reason": "an output", "remedy": "none"}
    assert json.loads(text)["groups"][2]["bundles"] == {"count": 1, "columns": "3;2;1;0"}
    assert plans.from_json(text) == PLAN
    assert plans.to_json(plans.from_json(text)) == text


def test_a_diff_of_two_plans_is_what_changed():
    other = replace(PLAN, cuts=(replace(PLAN.cuts[0], width=2, kept=(0, 3)), *PLAN.cuts[1:]))
    old, new = (plans.to_json(plan).splitlines() for plan in (PLAN, other))
    changed = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    assert changed == [
        '-       "width": 3,',
        '+       "width": 2,',
        '-       "keep": "0-1,3",',
        '+       "keep": "0,3",',
    ]


def test_scores_are_rounded_to_what_a_plan_carries():
    assert plans.rounded(0.12345678) == 0.123457
    noisy = replace(PLAN, cuts=(replace(PLAN.cuts[0], score=0.125 + 1e-12),))
    assert plans.to_json(noisy) == plans.to_json(replace(PLAN, cuts=PLAN.cuts[:1]))


def test_a_plan_file_is_read_from_where_it_lies(tmp_path):
    path = tmp_path / "ü plan.json"
    path.write_text(plans.to_json(PLAN), encoding="utf-8")
    assert plans.read(path) == PLAN
    with pytest.raises(PlanError, match="no such file"):
        plans.read(tmp_path / "other.json")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="not a text file"):
        plans.read(path)


# --- round trip -------------------------------------------------------------------------------------------------------

names = st.text(max_size=8)
nonempty = st.text(min_size=1, max_size=8)


@st.composite
def index_maps(draw, full):
    """All four shapes: blocks, regular columns, and anything."""
    kind = draw(st.sampled_from(["blocks", "columns", "rows"]))
    if kind == "blocks":
        return each(full, draw(st.integers(0, 9)), draw(st.integers(1, 4)))
    size = draw(st.integers(1, 3)) if kind == "columns" else None
    row = st.lists(st.integers(0, 99), min_size=size or 0, max_size=size or 3).map(tuple)
    return tuple(draw(st.lists(row, min_size=full, max_size=full)))


some_operands = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=2)


@st.composite
def cuts(draw, name):
    size, count = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    full = size * count
    channels = draw(st.permutations(range(full))) if draw(st.booleans()) else list(range(full))
    bundles = tuple(tuple(channels[b * size : (b + 1) * size]) for b in range(count))
    locked = draw(st.none() | st.builds(Locked, names, names))
    floor = size * draw(st.integers(1, count))
    group = Group(
        name=name,
        layers=tuple(draw(st.lists(names, max_size=3))),
        full=full,
        step=size * draw(st.integers(1, 3)),
        floor=floor,
        bundles=bundles,
        slices=tuple(
            Slice(draw(nonempty), draw(st.integers(0, 4)), draw(st.sampled_from(["out", "in"])), indices)
            for indices in draw(st.lists(index_maps(full), max_size=3))
        ),
        attributes=tuple(
            draw(
                st.lists(
                    st.builds(Attribute, names, nonempty, st.none() | st.integers(0, 3), st.integers(-9, 9)), max_size=2
                )
            )
        ),
        locked=locked,
        blends=tuple(
            Blend(draw(nonempty), draw(st.integers(0, 9)), tuple(operands), draw(st.integers(-1, 3)), indices)
            for operands, indices in draw(st.lists(st.tuples(some_operands, index_maps(full)), max_size=2))
        ),
    )
    width = draw(st.sampled_from(group.legal_widths()))
    kept = draw(st.permutations(bundles))[: width // size]
    score = plans.rounded(draw(st.floats(allow_nan=False, allow_infinity=False)))
    return Cut(group, width, tuple(sorted(channel for bundle in kept for channel in bundle)), score)


@st.composite
def whole_plans(draw):
    costs = st.builds(Costs, *[st.integers(0, 10**15)] * 3)
    return Plan(
        model=draw(st.builds(ModelId, names, names, names)),
        inputs=tuple(draw(st.lists(names, max_size=2))),
        settings=tuple(sorted(draw(st.dictionaries(names, names, max_size=3)).items())),
        budget=tuple(
            draw(
                st.lists(
                    st.builds(Limit, st.sampled_from(["macs", "thop_macs", "params"]), st.integers(1, 10**15)),
                    max_size=3,
                )
            )
        ),
        before=draw(costs),
        predicted=draw(costs),
        cuts=tuple(draw(cuts(name)) for name in draw(st.lists(names, max_size=3, unique=True))),
        notes=tuple(draw(st.lists(names, max_size=2))),
    )


@settings(deadline=None)
@given(whole_plans())
def test_every_plan_comes_back_exactly(plan):
    text = plans.to_json(plan)
    assert plans.from_json(text) == plan
    assert plans.to_json(plans.from_json(text)) == text


@pytest.mark.parametrize(("settings", "seed"), [((), 0), ((("seed", "7"),), 7), ((("seed", "soon"),), 0)])
def test_the_seed_of_a_plan(settings, seed):
    costs = Costs(1, 1, 1)
    assert plans.seed(Plan(ModelId("net", "", ""), (), settings, (), costs, costs, ())) == seed


# --- damage -----------------------------------------------------------------------------------------------------------


def refused(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        plans.from_json(text, "plan.json")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan.json is no plan: it is not JSON (line 1, column 1: Expecting value)"),
        ("<<<<<<< HEAD", "plan.json is no plan: it is not JSON (line 1, column 1: Expecting value)"),
        ("{}", 'plan.json is JSON, but no plan: it has no field "peel_plan"'),
        ("[1]", 'plan.json is JSON, but no plan: it has no field "peel_plan"'),
        ('{"peel_plan": 2}', "plan.json is a plan of version 2; this peel reads version 1"),
        ('{"peel_plan": true}', "plan.json is a plan of version True; this peel reads version 1"),
        ('{"peel_plan": NaN}', "plan.json is no plan: it is not JSON (NaN is no number)"),
        ('{"peel_plan": 1}', "plan.json is a corrupted plan: model: field required (and 7 more)"),
    ],
)
def test_what_is_no_plan(text, message):
    assert refused(text) == message


def test_json_that_is_only_brackets():
    assert "plan.json is no plan" in refused("[" * 100_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2}, "its width is 2, but 3 channels are kept"),
        ({"width": "3"}, "width: input should be a valid integer"),
        ({"width": True}, "width: input should be a valid integer"),
        ({"full": 0}, "full: input should be greater than or equal to 1"),
        ({"full": 10**9}, "full: input should be less than or equal to 4194304"),
        ({"score": "high"}, "score: input should be a valid number"),
        ({"score": None}, "score: input should be a valid number"),
        ({"keep": "0-1,4"}, "channel 4 is kept, but it has only 4"),
        ({"keep": "3,0-1"}, "its kept channels are not in ascending order"),
        ({"keep": "0,0,1"}, "its kept channels are not in ascending order"),
        ({"keep": "0-99999999"}, "more than 4 numbers"),
        ({"keep": "first three"}, "'first three' is no number or range such as 0-3"),
        ({"keep": "", "width": 0}, "width: input should be greater than or equal to 1"),
        ({"keep": "2", "width": 1, "floor": 2}, "its width 1 is none of its legal widths"),
        ({"locked": {"reason": "x"}}, "its width 3 is none of its legal widths"),
        ({"floor": 5}, "its floor is 5, more than its 4 channels"),
        ({"bundles": {"count": 2, "repeat": 2}}, "channels 2-3 go only together, but only some of them are kept"),
        ({"bundles": {"count": 3}}, "its bundles do not hold each of its 4 channels once"),
        ({"bundles": {"count": 2, "rows": "0-2;3"}}, "its bundles have different sizes"),
        ({"bundles": {"count": 2, "rows": "0-3"}}, "it has rows for 1 of 2 channels"),
        ({"slices": [{"tensor": "a", "dim": -1, "role": "in"}]}, "slices[0].dim: input should be greater than or equ"),
        ({"slices": [{"tensor": "a", "dim": 0, "role": "up"}]}, "slices[0].role: input should be 'out' or 'in'"),
        ({"slices": [{"tensor": "a", "dim": 0, "role": "in", "columns": "0-1"}]}, "the slice of a: its columns do not"),
        ({"slices": [{"tensor": "a", "dim": 0, "role": "in", "rows": "1"}]}, "the slice of a: it has rows for 1 of 4"),
        (
            {"slices": [{"tensor": "a", "dim": 0, "role": "in", "rows": "", "columns": ""}]},
            "the slice of a: its indices are given twice",
        ),
        (
            {"slices": [{"tensor": "a", "dim": 0, "role": "in", "repeat": 4194304}]},
            "the slice of a: 4 channels of 4194304 entries each are more than any tensor has",
        ),
        ({"attributes": [{"module": "a", "name": "b"}]}, "attributes[0].per_bundle: field required"),
        ({"colour": "red"}, "colour: extra inputs are not permitted"),
    ],
)
def test_a_corrupted_group_is_named(change, message):
    data = json.loads(plans.to_json(PLAN))
    data["groups"][0].update(change)
    found = refused(json.dumps(data))
    assert found.startswith(f"plan.json is a corrupted plan: group 'conv': {message}")


def test_other_damage_is_named_by_its_place():
    data = json.loads(plans.to_json(PLAN))
    twice = {**data, "groups": [data["groups"][0]] * 2}
    assert "group 'conv': there are two groups of this name" in refused(json.dumps(twice))
    assert "group 1: input should be" in refused(json.dumps({**data, "groups": [data["groups"][0], 3]}))
    assert "budget[0].bound: input should be" in refused(
        json.dumps({**data, "budget": [{"count": "macs", "bound": 0}]})
    )
    assert "before.macs: input should be" in refused(json.dumps({**data, "before": {**data["before"], "macs": -1}}))
    assert "groups: input should be a valid list" in refused(json.dumps({**data, "groups": {}}))


def test_half_a_file_is_refused_wherever_it_ends():
    text = plans.to_json(PLAN)
    for end in range(0, len(text) - 2, 37):
        assert "is not JSON" in refused(text[:end])
