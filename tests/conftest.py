"""What all tests share: torchvision made importable, and the real command in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.support.station import Station

ROOT = Path(__file__).resolve().parent.parent
OPERATORS = ROOT / "tests" / "support" / "torchvision_ops"


def _run_file(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if "torchvision" not in sys.modules:
    _run_file(OPERATORS / "sitecustomize.py", "torchvision_ops")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("peel", deadline=None, derandomize=True)  # noisy machines: no test asserts a time
# Every mutant is met by these, most of them by hand-worked cases: few examples, and none is made smaller.
settings.register_profile(
    "mutation", settings.get_profile("peel"), max_examples=15, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("peel")

PATIENCE = 300.0  # seconds, for a command on a busy machine
RunPeel = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def peel_environment() -> dict[str, str]:
    """Environment variables under which a fresh Python finds peelcli and can import torchvision, from any folder."""
    paths = [str(OPERATORS), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory, peel_environment: dict[str, str]) -> Iterator[Station]:
    """Runs commands without the seconds that imports take."""
    with Station(tmp_path_factory.mktemp("station"), peel_environment) as found:
        yield found


@pytest.fixture
def run_peel(tmp_path: Path, station: Station, peel_environment: dict[str, str]) -> RunPeel:
    """Run the real command: `run_peel("prune", "model.pt", cwd=folder)` -> CompletedProcess with text streams.

    cwd is the test's own tmp_path unless another is given; env is added to the environment. The process is forked from
    one that has imported all, unless a fresh one is asked for.
    """

    def run(
        *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        argv, folder = [str(argument) for argument in arguments], cwd or tmp_path
        if not fresh:
            ran = station.run(argv, folder, env, seconds=PATIENCE)
            assert ran.code is not None, f"peel {' '.join(argv)} did not end"
            return subprocess.CompletedProcess(argv, ran.code, ran.stdout, ran.stderr)
        return subprocess.run(
            [sys.executable, "-m", "peelcli", *argv],
            cwd=folder,
            env={**peel_environment, **(env or {})},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE,
        )

    return run
