"""Settings files that are hardly TOML, or hold something else where peel's table should be."""

from __future__ import annotations

import pytest

from peelcli.cli import settings
from peelcli.errors import UsageError


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 10_000, "a = ", "a = 1\na = 2"])
def test_a_file_that_can_not_be_read_is_told(text, tmp_path):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UsageError, match="can't be read as TOML"):
        settings.merged({}, tmp_path / "own.toml")


@pytest.mark.parametrize("text", ['tool = "peel"', "[[tool]]\npeel = 1", 'tool.peel = "50%"', ""])
def test_a_project_without_a_table_for_peel_has_no_settings(text, tmp_path):
    (tmp_path / "pyproject.toml").write_text(text)
    assert settings.merged({"flops": "50%"}, tmp_path / "pyproject.toml") == {"flops": "50%"}


def written(tmp_path, text):
    (tmp_path / "own.toml").write_text(text)
    return tmp_path / "own.toml"


@pytest.mark.parametrize(
    ("key", "near"),
    [("distil", "distill"), ("teachr", "teacher"), ("tempratur", "temperature"), ("evaluate-evry", "evaluate_every")],
)
def test_a_key_that_no_command_knows_is_refused_with_the_nearest(tmp_path, key, near):
    file = written(tmp_path, f"batch = 8\n{key} = 0.5\n")
    with pytest.raises(UsageError) as caught:
        settings.only({"batch": None, "distill": None}, file)
    assert caught.value.message == f"there is no setting {key.replace('-', '_')!r}"
    assert caught.value.hint == f"did you mean {near}?"


@pytest.mark.parametrize("key", ["out", "plot", "output-format", "jobs"])
@pytest.mark.parametrize("read", [settings.only, settings.merged])
def test_what_is_of_one_run_stands_on_the_command_line(tmp_path, key, read):
    with pytest.raises(UsageError) as caught:
        read({"flops": "50%"}, written(tmp_path, f'{key} = "slim.onnx"\n'))
    assert caught.value.message == f"{key} can't stand in a settings file, which is read by every run"
    assert caught.value.hint == f"take it out, and give --{key} on the command line"


def test_what_is_another_command_s_is_passed_over(tmp_path):
    file = written(tmp_path, 'teacher = "model.pt"\nflops = "50%"\nbatch = 8\n[report]\nmax-flops = "1G"\n')
    assert settings.only({"teacher": None, "batch": None}, file) == {"teacher": "model.pt", "batch": 8}
    assert settings.only({"teacher": "other.pt", "batch": None}, file) == {"teacher": "other.pt", "batch": 8}
    assert settings.merged({"flops": None}, file) == {"flops": "50%", "batch": 8}


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        (
            "peel.toml",
            '[reports]\nmax-flops = "1"\n',
            "a table is report; all other settings stand before it, in no table",
        ),
        ("peel.toml", '[tool.peel.report]\nmax-flops = "1"\n', "stand before it, in no table"),
        ("peel.toml", "[prune]\nalign = 1\n", "stand before it, in no table"),
        ("pyproject.toml", "[tool.peel.reprt]\nalign = 1\n", "stand before it, in [tool.peel]"),
    ],
)
@pytest.mark.parametrize("read", [lambda file: settings.only({}, file), lambda file: settings.table("report", file)])
def test_a_table_that_no_command_reads_is_refused(tmp_path, name, text, hint, read):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(UsageError, match="there is no table") as caught:
        read(tmp_path / name)
    assert caught.value.hint.endswith(hint)


def test_a_flag_replaces_the_other_way_to_say_the_same(tmp_path):
    file = written(tmp_path, 'steps = 2\ninput = "1,3,8,8"\nbatch = 8\n')
    flags = {"epochs": 1.0, "steps": None, "input_": None, "inputs": "net.py:example", "batch": None}
    assert settings.only(flags, file) == {"epochs": 1.0, "inputs": "net.py:example", "batch": 8}
    flags = {"epochs": None, "steps": 4, "input_": ["1,3,4,4"], "inputs": None, "batch": None}
    assert settings.merged(flags, file) == {"steps": 4, "input": ["1,3,4,4"], "batch": 8}
    assert settings.only({"epochs": None, "steps": None}, file) == {"steps": 2}


def test_a_text_that_is_none_is_refused():
    assert settings.text("teacher", {"teacher": "model.pt"}) == "model.pt"
    assert settings.text("teacher", {}) is None
    with pytest.raises(UsageError, match="teacher = 5 in the settings file is no text"):
        settings.text("teacher", {"teacher": 5})
