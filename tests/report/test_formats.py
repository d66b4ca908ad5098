"""Formats that other tools read: well formed, complete, and with every name escaped."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from peelcli.footprint import Footprint, LayerCost
from peelcli.report import comparison, formats
from peelcli.report.escaping import visible
from peelcli.report.formats import FORMATS, of_file
from peelcli.report.overview import Report, gaps
from tests.report.conftest import NASTY

FILE = Footprint("slim.onnx", "onnx", 1000, 200, bytes=4096, peak_bytes=512, inputs=("x=1x3x8x8",),
                 layers=(LayerCost("a", "Conv", 750, 150, 8), LayerCost("b", "Gemm", 250, 50, 10)),
                 uncounted=("DFT",), notes=("the batch is fixed to 8",))  # fmt: skip


def text(report, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(comparison.text(report, **options))
    lines = file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines)


ALONE = """\
slim.onnx: 1.00 kMACs (2.00 kFLOPs if a multiply-add counts twice), 200
parameters

per sample                 model
────────────────────────────────
MACs                  1.00 kMACs
parameters                   200
file                      4.1 kB
activations at most        512 B

layers                       share   MACs   width
─────────────────────────────────────────────────
a        ████████████····   75.0 %    750       8
b        ████············   25.0 %    250      10

notes
  slim.onnx: the batch is fixed to 8
  not counted, no formula is known for DFT"""


def test_one_file_as_text():
    assert text(Report((FILE,))) == ALONE


def test_several_models_with_long_names():
    first = replace(FILE, name="a/name/that/is/too/long/for/a/column.onnx", macs=2000)
    told = text(Report((first, FILE), rows=1), diff=True)
    assert "#1  a/name/that/is/too/long/for/a/column.onnx\n#2  slim.onnx" in told
    assert re.search(r"MACs +2\.00 kMACs +1\.00 kMACs +50\.0 %", told)
    assert "and 1 more with 62.5 % of the MACs; --layers 0 shows all" in told
    assert "every layer has the same MACs and parameters" in told
    assert "\nb " in text(Report((first, FILE), rows=0))
    other = replace(FILE, layers=FILE.layers[:1])
    assert re.search(r"\nb +250 +0 +50 +0", text(Report((first, other)), diff=True))


def test_a_run_with_bounds_as_text(report):
    told = text(report)
    assert re.search(r"--max-flops 1G +ok +multiply-adds 980\.00 M, at most 1\.00 G", told)
    assert re.search(r"--max-params 1M +VIOLATED +parameters 6\.00 M, at most 1\.00 M", told)
    assert "FOLLOWS" not in told
    assert "top-1 agreement" in told
    text(report, width=60)


def test_markdown(report):
    told = FORMATS["markdown"].render(report)
    assert told.startswith("### peel: 1 check did not hold\n")
    assert "| ❌ | --max-params 1M | parameters 6.00 M, at most 1.00 M |" in told
    assert "| MACs | 4.09 GMACs | 980.00 MMACs | 24.0 % |" in told
    assert "\n```\npeel prune model.pt --flops 1G\n```\n" in told
    assert told.count("<details>") == told.count("</details>") == 3
    good = replace(report, run=None, verdicts=report.verdicts[:1])
    assert FORMATS["markdown"].render(good).startswith("### peel: the bound holds\n")


def test_markdown_without_bounds_and_of_a_model_without_layers(report):
    plain = FORMATS["markdown"].render(Report((FILE,)))
    assert plain.startswith("### peel: report\n")
    assert "| a | 75.0 % |" in plain
    assert "75.0 %" not in FORMATS["markdown"].render(Report((replace(FILE, layers=()),)))
    broken = replace(report, run=None)
    assert FORMATS["markdown"].render(broken).startswith("### peel: 1 of 2 bounds violated\n")
    alone = replace(report, run=replace(report.run, fidelity=None, candidates=()))
    assert "against the original" in FORMATS["markdown"].render(report)
    assert "against the original" not in FORMATS["markdown"].render(alone)


def test_short_names_that_differ_stand_for_themselves():
    other = replace(FILE, name="other.onnx")
    assert comparison.labels([FILE, other]) == (["slim.onnx", "other.onnx"], [])
    assert comparison.labels([FILE, FILE]) == (["#1", "#2"], ["#1  slim.onnx", "#2  slim.onnx"])


def test_what_the_figures_leave_out_is_told():
    assert gaps([FILE]) == ["not counted, no formula is known for DFT"]
    unknown = replace(FILE, uncounted=(), unknown=("Conv", "Gemm"))
    assert gaps([unknown]) == ["slim.onnx has more multiply-adds: those of Conv, Gemm are not known"]


def test_markdown_escapes_names(nasty):
    told = FORMATS["markdown"].render(nasty).replace(visible(nasty.run.command), "")
    assert "<script" not in told.replace("\\<", "")
    assert "\n## 100" not in told
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) <= 7 for row in rows)


def test_junit(report):
    suites = ElementTree.fromstring(FORMATS["junit"].render(report))
    (suite,) = suites
    assert suite.attrib == {"name": "peel", "tests": "5", "failures": "2", "skipped": "1"}
    failed = {case.get("name"): case[0].get("message") for case in suite if case.find("failure") is not None}
    assert failed == {"--max-params 1M": "parameters 6.00 M, at most 1.00 M", "onnx_parity": "did not hold"}


def test_junit_without_bounds_and_with_odd_names(nasty):
    (suite,) = ElementTree.fromstring(FORMATS["junit"].render(Report((FILE,), path="slim.onnx")))
    assert [(case.get("name"), case[0].tag) for case in suite] == [("slim.onnx", "system-out")]
    odd = Report((replace(FILE, name=NASTY),), path=NASTY)
    (suite,) = ElementTree.fromstring(FORMATS["junit"].render(odd))
    assert suite[0].get("name").startswith("<script>")
    ElementTree.fromstring(FORMATS["junit"].render(nasty))


def test_github(report, nasty):
    lines = FORMATS["github"].render(report).splitlines()
    assert lines == [
        "::error file=runs/run.json,title=--max-params 1M::parameters 6.00 M, at most 1.00 M",
        "::error file=runs/run.json,title=check onnx_parity::it did not hold",
        "::warning file=runs/run.json,title=peel::not counted, no formula is known for aten.fft",
    ]
    assert (
        FORMATS["github"]
        .render(Report((replace(FILE, uncounted=()),), path="a.onnx"))
        .startswith("::notice file=a.onnx,title=peel::slim.onnx: 1.00 kMACs")
    )
    odd = FORMATS["github"].render(nasty)
    assert all(line.startswith("::") for line in odd.splitlines())
    assert "%0A## 100%25" in odd


def test_gitlab(report):
    found = json.loads(FORMATS["gitlab"].render(report))
    assert [finding["description"].partition(":")[0] for finding in found] == ["--max-params 1M", "check onnx_parity"]
    for finding in found:
        assert set(finding) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert finding["location"] == {"path": "runs/run.json", "lines": {"begin": 1}}
    assert len({finding["fingerprint"] for finding in found}) == 2
    assert json.loads(FORMATS["gitlab"].render(Report((FILE,)))) == []


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_any_name(name, nasty):
    rendered = FORMATS[name].render(nasty)
    assert rendered.endswith("\n")
    rendered.encode()


def test_a_file_s_format():
    assert [of_file(suffix, None) for suffix in (".json", ".MD", ".htm", ".xml", ".txt")] == [
        "json", "markdown", "html", "junit", "text"
    ]  # fmt: skip
    assert of_file(".json", "gitlab") == "gitlab"
    assert of_file(".html", "gitlab") == "html"
    assert formats.SUFFIXES == (".txt", ".json", ".md", ".html", ".htm", ".xml")


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_hands_on_what_a_terminal_would_obey(name, report):
    odd = "a\x1b[31m[/nothing]\u202e<b>"
    checks = tuple(replace(check, name=odd, note=odd) for check in report.run.checks)
    named = replace(report, run=replace(report.run, checks=checks), models=(replace(FILE, name=odd), FILE), path=odd)
    rendered = FORMATS[name].render(named)
    assert "\x1b" not in rendered
    assert "\u202e" not in rendered or name in ("json", "gitlab", "junit")  # read by programs
