"""Pictures of widths."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from peelcli.errors import ExportError
from peelcli.report import plot


def test_the_parts_of_a_bar_by_hand(run):
    """Stem fell to its backbone's 16 of 64; the next kept 63 of 64, 48.5 of them backbone; the head is locked."""
    stem, inner, head = plot.rows(run)
    assert stem.parts == (("backbone", 0, 0.25), ("from the pool", 0.25, 0.25), ("removed", 0.25, 1))
    assert inner.parts[1] == ("from the pool", 48.5 / 64, 63 / 64)
    assert (head.parts, head.told) == ((("locked", 0, 1),), "10 locked")
    bare = plot.rows(replace(run, backbone=()))[1]
    assert bare.parts == (("kept", 0, 63 / 64), ("removed", 63 / 64, 1))


def test_svg_is_whole_and_escaped(run, nasty):
    for each in (run, nasty.run):
        root = ElementTree.fromstring(plot.picture(each, ".svg"))
        assert root.tag.endswith("svg")
        bars = [part for part in root if part.tag.endswith("rect") and part.get("height") == "14"]
        assert bars
        assert all(float(bar.get("x")) + float(bar.get("width")) <= 771 for bar in bars)
    assert "<script" not in plot.svg(nasty.run)


def test_png_takes_any_name(nasty):
    cut = nasty.run.plan.cuts[0]
    dollars = replace(cut, group=replace(cut.group, name=r"$\no{formula}$"))  # for matplotlib a formula, a broken one
    odd = replace(nasty.run, plan=replace(nasty.run.plan, cuts=(cut, dollars)))
    with Image.open(io.BytesIO(plot.picture(odd, ".PNG"))) as image:
        assert image.width > 1000


def test_png_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plot.require(".svg")
    with pytest.raises(ExportError, match="needs matplotlib") as caught:
        plot.require(".png")
    assert "peelcli[plot]" in caught.value.hint
