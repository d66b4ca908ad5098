"""One model, one trace, many budgets."""

from peelcli.sweeps.run import sweep

__all__ = ["sweep"]
