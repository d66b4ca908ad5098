"""How far a run is, on a terminal and without one; and the flags for samples, as commands and files give them."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table
from typer import BadParameter

from peelcli.cli import console, main, options, settings, training_options
from peelcli.config import Budget, GraphForm, Options, Source
from peelcli.errors import UsageError
from peelcli.regimen import Training


def drawn(renderable):
    file = io.StringIO()
    Console(file=file, width=80).print(renderable)
    return file.getvalue().strip()


def test_a_stage_in_words():
    assert drawn(console._line("samples", 0, 0)) == "reading samples"
    assert drawn(console._line("something new", 0, 0)) == "something new"


def test_a_stage_with_a_bar():
    half, whole = drawn(console._line("repair", 6, 12)), drawn(console._line("repair", 12, 12))
    assert half.startswith("making up for what was cut ━")
    assert half.endswith(" 6/12")
    assert half.count("━") < whole.count("━") == 30


def test_progress_is_told_in_both_ways(capsys, monkeypatch):
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        with console.working() as progress:
            progress("load")
            progress("samples", 3, 12)
            progress("samples", done=12, total=12)
        out, err = capsys.readouterr()
        assert out == ""
        assert bool(err) == (terminal == "1")


def test_settings_files_know_samples(tmp_path):
    file = tmp_path / "peel.toml"
    file.write_text('data = "images"\nsamples = 32\nmean = [0.5, 0.25]\nimage-size = 64\nrepair = "none"\n')
    assert settings.merged({"samples": 8, "mean": None, "std": "0.5"}, file) == {
        "data": "images", "samples": 8, "mean": [0.5, 0.25], "image_size": 64, "repair": "none", "std": "0.5"
    }  # fmt: skip


def test_what_a_command_has_no_flag_for_is_left_out(tmp_path):
    file = tmp_path / "peel.toml"
    file.write_text('data = "images"\nrepair = "none"\nscore = "taylor"\nflops = "50%"\n')
    flags = {"data": None, "repair": "auto", "code": None, "input_": ["1x3"]}
    assert settings.only(flags, file) == {"data": "images", "repair": "auto", "input": ["1x3"]}


def test_a_value_that_is_none_of_the_choices_is_told_in_one_line(capsys):
    assert (
        console._explain(BadParameter("Value error, 'foo' is not one of 'auto', 'none'.", param_hint="--repair")) == 2
    )
    message, hint = capsys.readouterr().err.splitlines()
    assert message == "peel: Invalid value for --repair: 'foo' is not one of 'auto', 'none'."
    assert hint == "hint: see `peel --help`"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("prune", {"data", "samples", "validation", "image_size", "mean", "std", "metric", "repair", "device"}),
        ("plan", {"data", "samples", "validation", "image_size", "mean", "std", "metric", "repair", "device"}),
        ("apply", {"data", "samples", "validation", "image_size", "mean", "std", "metric", "repair", "device"}),
        ("inspect", set()),
    ],
)
def test_flags_for_samples(command, flags):
    from peelcli.config import Calibration

    found = getattr(main, command).__annotations__
    assert set(found) & set(Calibration.model_fields) == flags


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        (Source, [options.SOURCE]),
        (Budget, [options.BUDGETS]),
        (Options, [options.CHOICE, options.WIDTHS, options.SEED]),
        (GraphForm, [options.FORM]),
        (Training, [training_options.TRAINING, {"epochs": None, "steps": None}]),
    ],
)
def test_every_setting_has_a_flag(kind, groups):
    fields = kind.model_fields
    assert {name.rstrip("_") for group in groups for name in group} == set(fields)


def test_what_a_terminal_would_obey_is_written_out(capsys):
    console.tell("a\x1b[31m b\u202e\nc")
    assert capsys.readouterr().err == "peel: a\\x1b[31m b\\u202e c\n"


LATE = """
import signal
from peelcli.cli import console
class Odd:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
def command():
    Odd()
    import time
    time.sleep(20)
console.run(command)
"""
SHUT = """
from peelcli.cli import console
from peelcli.errors import UsageError
def command():
    console.show_utf8("a result")
    raise UsageError("no")
console.run(command)
"""


def test_an_interrupt_in_a_finaliser_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stderr) == (2, "peel: interrupted; nothing was written\n")


def test_streams_that_the_caller_closed():
    command = ["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, SHUT]
    assert subprocess.run(command, check=False).returncode == 2


LONG = """
from pathlib import Path
from peelcli.cli import console
console.run(lambda: Path("a" * 5000).read_text())
"""


def test_an_error_of_the_system_is_one_line():
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=False)
    first, second = done.stderr.splitlines()
    assert done.returncode == 2
    assert first.endswith("... can't be used: file name too long")
    assert second.startswith("hint: ")


@pytest.mark.parametrize(("rank", "speaker"), [("0", "peel"), ("1", "peel, process 1")])
def test_every_process_says_the_hint(rank, speaker, capsys, monkeypatch):
    """A launcher ends the others as soon as one has ended: the first one may not come to speak."""
    monkeypatch.setenv("RANK", rank)
    assert console._explain(UsageError("no", hint="write yes")) == 2
    assert capsys.readouterr().err == f"{speaker}: no\nhint: write yes\n"


def test_a_narrow_terminal_breaks_lines_and_keeps_the_figures(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    figures = Table("check", "allowed", "measured")
    figures.add_row("masked_equivalence_of_all", "0.000000001", "1.28826e-07")
    console.show(figures)
    assert {"0.000000001", "1.28826e-07"} <= set(capsys.readouterr().out.replace("│", " ").split())
