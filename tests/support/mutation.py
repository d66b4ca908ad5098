"""What a mutation run found, by file; `make mutation` ends with it.

Reads `mutmut results --all true`. Fails where less than ENOUGH of all mutants are killed, and where more of a
function's mutants live than docs/mutation.md explains.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ENOUGH = 0.90
EXPLAINED = Path(__file__).parents[2] / "docs" / "mutation.md"
# peelcli.allocation.meter.xǁMeterǁfits__mutmut_3: killed
RESULT = re.compile(r"\s*(?P<module>[\w.]+)\.x(?:_|ǁ\w+ǁ)(?P<function>\w+?)__mutmut_\d+: (?P<status>.+)")
DEAD = {"killed", "timeout"}


def tally(results: str) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """From what mutmut prints: mutants and dead ones by module, those that live by "module.function"."""
    mutants: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    alive: Counter[str] = Counter()
    for match in map(RESULT.fullmatch, results.splitlines()):
        if match is None:
            continue
        mutants[match["module"]] += 1
        if match["status"] in DEAD:
            dead[match["module"]] += 1
        else:
            alive[f"{match['module']}.{match['function']}"] += 1
    return mutants, dead, alive


def explained(page: str) -> Counter[str]:
    """How many mutants of each "module.function" the page's tables explain: | `function` | mutants | ... |."""
    rows = re.findall(r"^\| `([\w.]+)` \| (\d+) \|", page, re.MULTILINE)
    found: Counter[str] = Counter()
    for function, count in rows:
        found[f"peelcli.{function}"] += int(count)
    return found


def verdict(results: str, page: str) -> tuple[list[str], bool]:
    """The lines to print, and whether all is well."""
    mutants, dead, alive = tally(results)
    lines = [f"{'module':32} mutants  killed  score"]
    rows = [(module, mutants[module], dead[module]) for module in sorted(mutants)]
    for module, count, killed in [*rows, ("all", mutants.total(), dead.total())]:
        lines.append(f"{module:32} {count:7} {killed:7}  {killed / max(count, 1):6.1%}")
    new = alive - explained(page)
    lines += [f"{function}: {count} more alive than {EXPLAINED.name} explains" for function, count in new.items()]
    return lines, dead.total() >= ENOUGH * mutants.total() > 0 and not new


def main() -> None:
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    results = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    lines, well = verdict(results, EXPLAINED.read_text("utf-8"))
    print("\n".join(lines))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
