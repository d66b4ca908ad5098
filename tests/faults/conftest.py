"""A fork server and a folder of good files for all fault tests, and a way to run one case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults import goods as good_files
from tests.faults.judge import faults, seen
from tests.support.station import Ran, Station


@pytest.fixture(scope="session")
def goods(tmp_path_factory: pytest.TempPathFactory, station: Station) -> Path:
    """A folder with a good file of every kind."""
    folder = tmp_path_factory.mktemp("goods")
    good_files.lay_out(folder, station)
    return folder


Behaves = Callable[..., Ran]


@pytest.fixture
def behaves(station: Station, tmp_path: Path) -> Behaves:
    """Run a command in tmp_path and hold it to what must hold of every command; returns what it did."""

    def check(argv: Sequence[str], outputs: tuple[str, ...] = (), **how: object) -> Ran:
        before = seen(tmp_path)
        ran = station.run(argv, tmp_path, **how)  # type: ignore[arg-type]
        found = faults(ran, tmp_path, before, outputs)
        assert not found, f"peel {' '.join(argv)}\n" + "\n".join(found) + f"\n{ran.code}: {ran.stderr[-2000:]}"
        return ran

    return check
