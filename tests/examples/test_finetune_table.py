"""The benchmark of training: what its table is made of, without its packages and its hours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.startswith(("finetune_table", "common"))]:
        del sys.modules[name]


def row(method="peel", seed=0, start=0.5, end=0.9, hardware="a CPU", **more):
    return {
        "course": "digits",
        "seed": seed,
        "method": method,
        "hardware": hardware,
        "share": 0.1,
        "batch": 64,
        "figures": {"0": {"top1": start}, "50": {"top1": end}},
        "unpruned": {"top1": 0.985},
        "samples_per_second": 1000.0 + seed,
        "versions": {"torch": "2"},
        **more,
    }


def cells(text, method):
    line = next(line for line in text.splitlines() if line.startswith(f"| {method} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_steps_run_across_and_seeds_are_put_together():
    from finetune_table import section

    rows = [row(seed=seed, end=0.9 + seed / 100) for seed in range(3)] + [row("uniform", start=0.1, end=0.2)]
    text = section([*rows, {**row("uniform", seed=1), "error": "no"}], {"digits": "Digits", "other": "Other"})
    assert cells(text, "method") == ["method", "unpruned", "0 steps", "50 steps"]
    assert cells(text, "peel")[2:] == ["50.0 (50.0 to 50.0)", "91.0 (90.0 to 92.0)"]
    assert cells(text, "uniform") == ["uniform", "98.5", "10.0", "20.0"]
    assert "10% of the multiply-adds, 64 samples a step, on a CPU: 1000 samples/s." in text
    assert "Other" not in text


def test_every_machine_has_a_table_of_its_own():
    from finetune_table import section

    text = section([row(), row(hardware="a GPU", gpu_mib=300, end=0.95)], {"digits": "Digits"})
    assert text.count("### Digits: digits") == 2
    assert "on a GPU: 1000 samples/s, 300 MiB of its memory." in text


def test_the_page_s_part_is_replaced_and_the_rest_stays(tmp_path):
    from finetune_table import write

    page = tmp_path / "page.md"
    page.write_text("# Mine\n\nbefore\n")
    write(page, [row()], {"digits": "Digits"})
    write(page, [row(end=0.7)], {"digits": "Digits"})
    text = page.read_text()
    assert text.startswith("# Mine\n\nbefore\n")
    assert text.count("<!-- finetune: begin -->") == 1
    assert "70.0" in text
    assert "90.0" not in text
