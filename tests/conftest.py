"""What all tests share: torchvision made importable, and the real command in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

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

settings.register_profile("peel", deadline=None, derandomize=True)  # noisy machines: no test asserts a time
settings.load_profile("peel")

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


@pytest.fixture
def run_peel(tmp_path: Path, peel_environment: dict[str, str]) -> RunPeel:
    """Run the real command: `run_peel("prune", "model.pt", cwd=folder)` -> CompletedProcess with text streams.

    cwd is the test's own tmp_path unless another is given; extra environment variables go into env.
    """

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "peelcli", *map(str, arguments)],
            cwd=cwd or tmp_path,
            env={**peel_environment, **(env or {})},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run
