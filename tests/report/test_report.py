"""Reports: the JSON shape that scripts rely on, and text that reads well at 80 columns without colour."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from peelcli.records import Artifact, Check, Costs, Cut, Group, Limit, Locked, ModelId, Plan, Run
from peelcli.report import inspection, layout
from peelcli.report.document import document
from peelcli.report.text import both_counts, summary
from peelcli.results import Candidate, Distance, Fidelity, Inspection


def group(name, layers, full=64, locked=None):
    bundles = tuple((c,) for c in range(full))
    return Group(name, layers, full, 16, 16, bundles, (), (), locked)


STREAM = group("stem", ("stem", "bn", *[f"blocks.{b}.{part}" for b in range(12) for part in ("conv2", "bn2")]))
INNER = group("blocks.0.[conv1]", ("blocks.0.[conv1]", "blocks.0.bn1"))
HEAD = group("head", ("head",), 10, Locked("its channels are the model's output", "nothing to do"))

RUN = Run(
    version="0.1.0",
    plan=Plan(
        model=ModelId("größe", "a" * 64, "b" * 64),
        inputs=("1x3x224x224",),
        settings=(("flops", "1G"), ("seed", "0")),
        budget=(Limit("macs", 1_000_000_000), Limit("thop_macs", 1_000_000_000)),
        before=Costs(4_089_184_256, 25_557_032, 4_133_742_592),
        predicted=Costs(980_000_000, 6_000_000, 999_999_999),
        cuts=(
            Cut(STREAM, 16, tuple(range(16)), 0.25),
            Cut(INNER, 63, tuple(range(63)), 0.5),
            Cut(HEAD, 10, tuple(range(10)), 0.0),
        ),
    ),
    after=Costs(980_000_000, 6_000_000, 999_999_999),
    checks=(
        Check("predicted_macs", True, 0.0, 0.0),
        Check("masked_equivalence", None, note="a norm mixes channels"),
        Check("onnx_parity", False, float("inf"), 1e-4),
    ),
    artifacts=(Artifact("out put/slim.onnx", "onnx", 24_100_000), Artifact("slim.pt", "pt", 900)),
    seconds={"load": 0.25, "trace": 1.0},
    uncounted=("aten.fft",),
    notes=("the input was guessed",),
)

INSPECTION = Inspection(
    model="größe",
    inputs=("1x3x224x224",),
    groups=(STREAM, INNER, HEAD),
    shares=(0.75, 0.125, 0.0004),
    full=RUN.plan.before,
    least=Costs(110_675_000, 558_000, 117_000_000),
    uncounted=("aten.fft",),
    notes=("the input was guessed",),
)


def rendered(renderable, width=80, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, highlight=False).print(renderable)
    file.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines)


SUMMARY = """\
größe: 980.00 MMACs (1.96 GFLOPs if a multiply-add counts twice), 24.0 % of the
original

per sample                                 before          after     kept
─────────────────────────────────────────────────────────────────────────
MACs                                   4.09 GMACs   980.00 MMACs   24.0 %
FLOPs, a multiply-add counted twice   8.18 GFLOPs    1.96 GFLOPs   24.0 %
MACs as thop counts                    4.13 GMACs     1.00 GMACs   24.2 %
parameters                                25.56 M         6.00 M   23.5 %
ONNX file                                                24.1 MB

budget                      at most         after      used
───────────────────────────────────────────────────────────
MACs                  1,000,000,000   980,000,000   98.00 %
MACs as thop counts   1,000,000,000   999,999,999   99.99 %

widths                                     kept   of
─────────────────────────────────────────────────────────────
stem (+25)              ████············     16   64   25.0 %
blocks.0.[conv1] (+1)   ███████████████·     63   64   98.4 %
head                    ████████████████     10   10   locked
locked
  head: its channels are the model's output

checks               result           measured   allowed
────────────────────────────────────────────────────────
predicted_macs       ok                      0         0
masked_equivalence   not comparable
onnx_parity          FAILED                inf    0.0001
  masked_equivalence: a norm mixes channels

notes
  the input was guessed
  no samples: nothing was repaired, accuracy is not known; give --data, or
  --data synthetic
not counted, no formula is known for
  aten.fft
time
  load 0.2 s, trace 1.0 s, in all 1.2 s
written
  out put/slim.onnx (24.1 MB)
  slim.pt (900 B)"""


def test_the_whole_summary_at_80_columns():
    assert rendered(summary(RUN)) == SUMMARY


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_summary_fits_any_width(width):
    text = rendered(summary(RUN), width)
    assert "not comparable" in " ".join(text.split())


def test_an_output_that_knows_only_ascii_gets_ascii():
    plain = replace(RUN, plan=replace(RUN.plan, model=ModelId("net", "", "")))
    text = rendered(summary(plain), encoding="ascii")
    assert "####............" in text
    rendered(inspection.table(replace(INSPECTION, model="net")), encoding="ascii")


def test_no_escape_codes_where_there_is_no_terminal():
    assert "\x1b" not in rendered(summary(RUN))
    assert "\x1b" not in rendered(inspection.table(INSPECTION))


def test_a_run_that_wrote_and_checked_nothing_has_no_empty_tables():
    bare = Run(
        "0.1.0", replace(RUN.plan, budget=(), cuts=(), before=Costs(0, 0, 0), notes=()), Costs(0, 0, 0), checks=()
    )
    text = rendered(summary(bare))
    assert sum(line.startswith("─") for line in text.splitlines()) == 1
    for word in ("budget", "widths", "checks", "written", "time", "notes", "ONNX"):
        assert word not in text


def test_long_names_are_folded_and_not_cut():
    name = ".".join(f"very_long_module_name_{n}" for n in range(6))
    run = replace(RUN, plan=replace(RUN.plan, cuts=(Cut(group(name, (name,)), 16, tuple(range(16)), 0.0),)))
    lines = rendered(summary(run)).splitlines()
    assert name in "".join(line.split(" ")[0] for line in lines)


def test_both_habits_of_counting():
    assert both_counts(1_000_000_000) == "1.00 GMACs (2.00 GFLOPs if a multiply-add counts twice)"


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0.00 %"), (0.99999, "99.99 %"), (1.0, "100.00 %"), (1.000001, "100.01 %")]
)
def test_a_budget_is_never_rounded_to_met(share, text):
    assert layout.percent(share) == text


FIDELITY = Fidelity(
    fitted=192,
    held=64,
    cut=Distance(0.4567, 1.25, 0.6125, 0.5),
    repaired=Distance(0.01234, 0.000123, 0.99996, 0.953125),
    metric="accuracy",
    original=0.96875,
    notes=("3 of 9 layers could not be repaired",),
)
TRIED = (Candidate("peel", FIDELITY.repaired, True), Candidate("uniform", FIDELITY.cut, False))
JUDGED = replace(RUN, fidelity=FIDELITY, candidates=TRIED)

FOLLOWS = """\
widths tried   relative L2   KL, nats   top-1 agreement   accuracy
───────────────────────────────────────────────────────────────────────────
peel                0.0123   0.000123           100.0 %     95.3 %   chosen
uniform              0.457       1.25            61.3 %     50.0 %

against the original   original      cut   repaired
───────────────────────────────────────────────────
relative L2                        0.457     0.0123
KL, nats                            1.25   0.000123
top-1 agreement                   61.3 %    100.0 %
accuracy                 96.9 %   50.0 %     95.3 %
  on 64 samples that nothing was fitted on; 192 samples for scores and repair
  3 of 9 layers could not be repaired
"""


def test_how_well_the_slim_model_follows():
    text = rendered(summary(JUDGED))
    assert f"\n\n{FOLLOWS}\n" in text
    assert "no samples" not in text
    rendered(summary(JUDGED), width=60)


def test_only_what_is_known_is_shown():
    values = Distance(1234.5)
    bare = replace(RUN, fidelity=Fidelity(1, 1, values, None), candidates=(Candidate("peel", values, True),))
    text = rendered(summary(bare))
    for word in ("repaired", "KL", "top-1", "metric", "accuracy"):
        assert word not in text
    assert re.search(r"relative L2 +1,234\n", text)
    assert "on 1 sample that nothing was fitted on; 1 sample for" in text


def test_a_metric_of_the_user_s_is_no_share():
    one = Distance(0.5, metric=93.47)
    text = rendered(summary(replace(RUN, fidelity=Fidelity(9, 3, one, None, "accuracy", 95.0))))
    assert re.search(r"accuracy +95\.0 +93\.5\n", text)
    text = rendered(summary(replace(RUN, fidelity=Fidelity(9, 3, one, None, "miou", float("-inf")))))
    assert re.search(r"miou +-inf +93\.5\n", text)


def test_a_model_that_was_not_cut_needs_no_samples():
    whole = replace(RUN, plan=replace(RUN.plan, cuts=RUN.plan.cuts[2:]))
    assert "no samples" not in rendered(summary(whole))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (0.0, "0"), (1.0, "1.00"), (0.4567, "0.457"), (45.67, "45.7"), (100.4, "100"), (0.001, "0.00100"),
        (0.000999, "0.000999"), (1e-5, "1.00e-05"), (123456.0, "123,456"), (-0.5, "-0.500"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_figures_have_three_digits(value, text):
    assert layout.figure(value) == text


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ((), ""),
        (("conv",), "conv"),
        (("a.0.b", "a.1.b", "a.3.b", "c"), "a.[0-1,3].b, c"),
        (("a.0.x", "a.0.y", "a.1.x", "a.1.y"), "a.[0-1].x, a.[0-1].y"),
        (("0", "1", "2"), "[0-2]"),
        (("a.1.b.0", "a.1.b.1", "a.2.c"), "a.1.b.[0-1], a.2.c"),
        (("x.007", "x.008"), "x.007, x.008"),
        (("x.²", "x.³"), "x.², x.³"),
    ],
)
def test_layer_names_are_drawn_together(layers, text):
    assert layout.gathered(layers) == text


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_the_document_worked_by_hand():
    found = document(RUN)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["peel"] == "0.1.0"
    assert found["model"]["name"] == "größe"
    assert found["before"] == {"macs": 4_089_184_256, "params": 25_557_032, "thop_macs": 4_133_742_592}
    assert found["after"] == {
        "macs": 980_000_000,
        "params": 6_000_000,
        "thop_macs": 999_999_999,
        "onnx_bytes": 24_100_000,
    }
    assert found["budget"] == {"macs": 1_000_000_000, "params": None, "thop_macs": 1_000_000_000}
    assert found["used"] == {"macs": 0.98, "params": None, "thop_macs": 0.999999999}
    assert found["predicted"]["macs"] == 980_000_000
    assert found["groups"][2] == {
        "name": "head",
        "layers": ["head"],
        "full": 10,
        "width": 10,
        "score": 0.0,
        "locked": "its channels are the model's output",
        "step": 16,
        "floor": 16,
        "used": 1.0,
        "backbone": None,
    }
    assert found["groups"][0]["locked"] is None
    assert found["checks"] == [
        {"name": "predicted_macs", "ok": True, "value": 0.0, "tolerance": 0.0, "note": ""},
        {"name": "masked_equivalence", "ok": None, "value": None, "tolerance": None, "note": "a norm mixes channels"},
        {"name": "onnx_parity", "ok": False, "value": None, "tolerance": 1e-4, "note": ""},
    ]
    assert found["outputs"] == ["out put/slim.onnx", "slim.pt"]
    assert found["seconds"] == {"load": 0.25, "trace": 1.0}
    assert found["uncounted"] == ["aten.fft"]
    assert found["notes"] == ["the input was guessed"]
    assert found["settings"] == {"flops": "1G", "seed": "0"}


def test_fidelity_and_candidates_as_a_document():
    broken = Candidate("greedy", Distance(float("inf"), float("inf"), 0.0, float("-inf")), False)
    found = document(replace(JUDGED, candidates=(TRIED[0], broken)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    repaired = {"relative": 0.01234, "kl": 0.000123, "agreement": 0.99996, "metric": 0.953125}
    assert found["fidelity"] == {
        "fitted": 192,
        "held": 64,
        "synthetic": False,
        "cut": {"relative": 0.4567, "kl": 1.25, "agreement": 0.6125, "metric": 0.5},
        "repaired": repaired,
        "metric": "accuracy",
        "original": 0.96875,
        "notes": ["3 of 9 layers could not be repaired"],
    }
    assert found["candidates"] == [
        {"name": "peel", "chosen": True, "distance": repaired},
        {
            "name": "greedy",
            "chosen": False,
            "distance": {"relative": None, "kl": None, "agreement": 0.0, "metric": None},
        },
    ]
    bare = document(replace(RUN, fidelity=Fidelity(2, 1, Distance(0.5), None)))
    assert (bare["fidelity"]["repaired"], bare["fidelity"]["metric"], bare["candidates"]) == (None, None, [])
    assert document(RUN)["fidelity"] is None


def test_without_an_onnx_file_there_is_no_size_of_one():
    assert "onnx_bytes" not in document(replace(RUN, artifacts=()))["after"]


INSPECTED = """\
größe: 4.09 GMACs (8.18 GFLOPs if a multiply-add counts twice), 2 of 3 groups
can be pruned with input 1x3x224x224

groups                                            width   step    floor     MACs
────────────────────────────────────────────────────────────────────────────────
stem                                                 64     16       16   75.0 %
  bn, blocks.[0-11].conv2, blocks.[0-11].bn2
blocks.0.[conv1]                                     64     16       16   12.5 %
  blocks.0.bn1
head                                                 10          locked    0.0 %
  locked: its channels are the model's output;
  nothing to do

per sample            original      least    kept
─────────────────────────────────────────────────
MACs                    4.09 G   110.67 M   2.7 %
MACs as thop counts     4.13 G   117.00 M   2.8 %
parameters             25.56 M   558.00 k   2.2 %

not counted, no formula is known for
  aten.fft
notes
  the input was guessed"""


def test_the_whole_inspection_at_80_columns():
    assert rendered(inspection.table(INSPECTION)) == INSPECTED


def test_the_inspection_as_a_document():
    found = inspection.document(INSPECTION)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["model"] == {"name": "größe", "inputs": ["1x3x224x224"]}
    assert found["full"]["macs"] == 4_089_184_256
    assert found["least"] == {"macs": 110_675_000, "params": 558_000, "thop_macs": 117_000_000}
    assert found["groups"][1] == {
        "name": "blocks.0.[conv1]",
        "layers": ["blocks.0.[conv1]", "blocks.0.bn1"],
        "full": 64,
        "step": 16,
        "floor": 16,
        "share": 0.125,
        "prunable": True,
        "locked": None,
        "remedy": None,
    }
    assert (found["groups"][2]["prunable"], found["groups"][2]["remedy"]) == (False, "nothing to do")
