"""Files of a small network and its slim version, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.lessons import lay_out


@pytest.fixture(scope="session")
def _school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school")
    lay_out(folder)
    return folder


@pytest.fixture
def school(_school: Path, tmp_path: Path) -> Path:
    """A folder of the test's own: model.pt, slim.safetensors, slim.pt, x.npy, xy.pt."""
    shutil.copytree(_school, tmp_path, dirs_exist_ok=True)
    return tmp_path
