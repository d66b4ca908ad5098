"""One table of all ops that can be rebuilt; a file here for each kind of them."""

from peelcli.sources.onnxfile.ops import (  # noqa: F401  (each fills the table)
    activations,
    convolutions,
    elementwise,
    indexing,
    linear,
    norms,
    pools,
    reductions,
    shapes,
)
from peelcli.sources.onnxfile.ops.base import TABLE

__all__ = ["TABLE"]
