"""The HTML page: whole, safe, and as a browser shows it. The browser's tests are skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from peelcli.footprint import Footprint
from peelcli.report import html
from peelcli.report.overview import Report
from tests.report.conftest import NASTY

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
VOID = {"meta", "link", "wbr"}
AFTER = (0x24, 0x62, 0xA6)  # the colour of the slim model's bars on white paper


class Reader(HTMLParser):
    """Sees that tags close in order, and collects what matters."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_holds_what_the_report_does(report):
    reader = read(html.render(report))
    text = " ".join("".join(reader.text).split())
    for words in (
        "24.0 % of 4.09 GMACs", "--max-params 1M", "violated", "Where the multiply-adds are", "How the pool was shared",
        "Against the original", "Checks", "not comparable", "peel prune model.pt --flops 1G", "a norm mixes channels",
        "1 check did not hold", "aten.fft",
    ):  # fmt: skip
        assert words in text
    bars = [attributes for tag, attributes in reader.seen if tag == "rect" and attributes.get("class") == "a"]
    widths = [float(bar["width"]) for bar in bars]
    assert 250.0 in widths  # stem: 150 of 600 multiply-adds


def test_the_page_needs_no_network(report):
    page = html.render(report)
    reader = read(page)
    for _, attributes in reader.seen:
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:,") == "data:,"
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_name_is_escaped(nasty):
    page = html.render(nasty)
    reader = read(page)
    assert [tag for tag, _ in reader.seen].count("script") == 1
    assert NASTY.partition("\n")[0] in "".join(reader.text).replace("\u200b", "")


def test_a_report_without_a_run_and_without_layers(report):
    text = "".join(read(html.render(Report((Footprint("a.onnx", "onnx", 0, 0),)))).text)
    assert "How the pool was shared" not in text
    assert "a.onnx" in text


def test_models_side_by_side_and_one_alone(report):
    before, after = report.models
    several = "".join(read(html.render(replace(report, models=(before, after, replace(after, name="third"))))).text)
    assert "For one sample." in several
    assert "third" in several
    alone = "".join(read(html.render(Report((replace(before, macs=1000),)))).text)
    assert "60.0 %" in alone  # the stem's 600 of 1000 multiply-adds
    assert "For one sample." not in alone
    less = "".join(read(html.render(Report((replace(before, metric="miou", metric_value=0.9), after)))).text)
    assert "miou" not in less  # the last model does not know it: no card


def test_a_run_in_which_all_is_locked_has_no_pool(report):
    cuts = tuple(cut for cut in report.run.plan.cuts if cut.group.locked)
    assert cuts
    locked = replace(report.run, plan=replace(report.run.plan, cuts=cuts), backbone=())
    text = "".join(read(html.render(replace(report, run=locked))).text)
    assert "How the pool was shared" not in text
    assert "Widths" not in text


# --- in a browser


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run headless; what the page's console says goes to stderr."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--force-color-profile=srgb", f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def share_of(picture: Path, colour: tuple[int, int, int]) -> float:
    from PIL import Image

    with Image.open(picture) as image:
        pixels = image.convert("RGB")
        colours = {value: number for number, value in pixels.getcolors(pixels.width * pixels.height)}
    near = sum(n for value, n in colours.items() if all(abs(a - b) <= 3 for a, b in zip(value, colour, strict=True)))
    return near / (pixels.width * pixels.height)


@needs_browser
@pytest.mark.parametrize(("script", "width"), [(True, 1100), (False, 500)], ids=["desktop", "phone, no script"])
def test_the_figures_are_drawn(report, tmp_path, script, width):
    page, picture = tmp_path / "page.html", tmp_path / "shot.png"
    text = html.render(report)
    page.write_text(text if script else re.sub("<script>.*</script>", "", text, flags=re.DOTALL), "utf-8")
    done = chromium(page, f"--screenshot={picture}", f"--window-size={width},1600")
    assert "CONSOLE" not in done.stderr
    assert share_of(picture, AFTER) > 0.001


@needs_browser
def test_a_table_sorts_when_its_heading_is_pressed(report, tmp_path):
    page = tmp_path / "page.html"
    press = "<script>document.querySelectorAll('table.sortable thead th button')[2].click()</script></body>"
    page.write_text(html.render(report).replace("</body>", press), "utf-8")
    done = chromium(page, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    body = done.stdout.partition('class="sortable"')[2].partition("</table>")[0]
    assert 'aria-sort="descending"><button type="button">after' in body
    values = [
        float(value) for value in re.findall(r'<td class="n" data-v="([\d.e+]+)">[^<]*</td><td class="n" data-v', body)
    ]
    assert values
    order = [row.partition(">")[2].partition("<")[0] for row in re.findall(r'<td class="name">[^<]*<', body)]
    assert order == ["stem", "head"]
