"""Records and reports as files: what is written comes back, and is what the published schemas say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from peelcli.errors import SourceError
from peelcli.footprint import Footprint, LayerCost
from peelcli.report import overview, record, schema
from peelcli.report.document import document
from peelcli.report.overview import Difference, Report, differences
from peelcli.timings import Conditions, Latency, Pace, Ratio, Try
from tests.report.test_report import JUDGED, RUN
from tests.report.test_tuning import TUNING

DOCS = Path(__file__).resolve().parents[2] / "docs"


def as_file(data):
    return json.loads(json.dumps(data, allow_nan=False))


def valid(data, name):
    published = json.loads((DOCS / name).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.Draft202012Validator(published).validate(as_file(data))


def test_a_record_comes_back_as_it_was(run):
    told = as_file(document(run))
    again = record.parse(told, "run.json")
    assert document(again) == told
    assert again.sides == tuple(replace(side, uncounted=run.uncounted) for side in
                                (replace(side, name="größe") for side in run.sides))  # fmt: skip
    assert again.fidelity == run.fidelity
    assert again.command == run.command


def test_a_bare_record_comes_back_too():
    told = as_file(document(RUN))
    assert document(record.parse(told, "run.json")) == told


def test_latency_training_and_samples_that_were_made_up_come_back():
    latency, ratio = Latency(0.002, 0.0019, 0.0021, 0.0018, 40), Ratio(0.48, 0.47, 0.49, 0.95, 12)
    pace = Pace("50%", Conditions("cpu", 1), 0.5, latency, latency, (Try(0.47, ratio), Try(0.49, ratio)), 1, 7)
    fidelity = replace(JUDGED.fidelity, synthetic=True)
    full = replace(JUDGED, pace=pace, tunings=(TUNING,), fidelity=fidelity)
    told = as_file(document(full))
    valid(told, "run.schema.json")
    again = record.parse(told, "run.json")
    assert (again.pace, again.fidelity) == (pace, fidelity)
    assert again.tunings[0].curve[0].step == TUNING.curve[0].step
    assert document(again) == told


def test_the_published_schemas_are_those_of_the_code():
    for name, text in schema.texts().items():
        assert (DOCS / name).read_text("utf-8") == text, "run `make schemas`"


def test_what_is_written_is_valid(run, report):
    valid(document(run), "run.schema.json")
    valid(document(RUN), "run.schema.json")
    valid(overview.document(report), "report.schema.json")
    valid(overview.document(Report((Footprint("a.onnx", "onnx", 1, 1),))), "report.schema.json")


def test_a_schema_that_allows_anything_would_be_none(run):
    for damage in ({"before": {"macs": "many"}}, {"checks": [{"ok": True}]}, {"peel_run": 2}):
        with pytest.raises(jsonschema.ValidationError):
            valid({**document(run), **damage}, "run.schema.json")


def test_records_before_there_were_versions(run):
    """As 0.1.0 wrote them at first: no version, no layers, no backbone, no command, no peak."""
    old = as_file(document(run))
    for key in ("peel_run", "layers", "command"):
        del old[key]
    for side in ("before", "after"):
        del old[side]["peak_bytes"]
    for group in old["groups"]:
        del group["backbone"]
    again = record.parse(old, "run.json")
    assert again.sides is None
    assert again.backbone == ()
    before, after = overview.sides(again)
    assert (before.macs, after.macs) == (run.plan.before.macs, run.after.macs)
    assert after.agreement == 0.99996


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"peel_run": 2}, "version 2; this peel reads up to 1"),
        ({"peel_run": "x"}, "is no record of a run: peel_run"),
        ({"before": None}, "is no record of a run: before"),
        ({"after": {"macs": -1, "params": 1, "thop_macs": 1}}, "after.macs"),
        ({"groups": [{"name": "a", "full": 0, "width": 0}]}, "groups.0.full"),
    ],
)
def test_a_record_that_is_damaged_or_of_a_newer_peel(run, damage, says):
    with pytest.raises(SourceError) as caught:
        record.parse({**as_file(document(run)), **damage}, "run.json")
    assert says in caught.value.message


def test_a_report_comes_back_as_models(report):
    told = as_file(overview.document(report))
    assert overview.parse(told, "report.json") == report.models
    assert told["ok"] is False
    assert [bound["ok"] for bound in told["bounds"]] == [True, False]
    for damage, says in (({"peel_report": 2}, "up to 1"), ({"models": []}, "models"), ({"models": [{}]}, "models.0")):
        with pytest.raises(SourceError, match=says):
            overview.parse({**told, **damage}, "report.json")


def test_a_failed_check_fails_the_report(run):
    assert Report(overview.sides(run), run).ok is False  # onnx_parity did not hold
    good = replace(run, checks=run.checks[:2])
    assert Report(overview.sides(good), good).ok is True


def test_differences_layer_by_layer():
    a = Footprint("a", "module", 3, 5, layers=(LayerCost("x", "", 1, 2), LayerCost("y", "", 2, 3)))
    b = Footprint("b", "onnx", 3, 4, layers=(LayerCost("y", "", 2, 3), LayerCost("z", "", 1, 1)))
    assert list(differences(a, b)) == [Difference("x", (1, 0), (2, 0)), Difference("z", (0, 1), (0, 1))]
