"""Which lines the tests reached, against what is wanted; `make coverage` ends with it.

The rooms without tensors are those of the import contract in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = 92  # percent of all lines
PURE = "Pure rooms know names and numbers, no tensors"


def pure_rooms(pyproject: str) -> list[str]:
    """The files of the contract's modules."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (modules,) = (contract["source_modules"] for contract in contracts if contract["name"] == PURE)
    paths = [ROOT / module.replace(".", "/") for module in modules]
    return [f"{path}/*" if path.is_dir() else f"{path}.py" for path in paths]


def reached(least: int, *options: str) -> bool:
    command = [sys.executable, "-m", "coverage", "report", f"--fail-under={least}", *options]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main() -> None:
    package = reached(PACKAGE)
    pure = reached(100, f"--include={','.join(pure_rooms((ROOT / 'pyproject.toml').read_text('utf-8')))}")
    print(f"the package at {PACKAGE} %: {package}; the rooms without tensors at 100 %: {pure}")
    sys.exit(0 if package and pure else 1)


if __name__ == "__main__":
    main()
