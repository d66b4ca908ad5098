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
