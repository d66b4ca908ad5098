"""How long ONNX files take in onnxruntime, and what that allows to say; no torch."""

from peelcli.latency.turns import compare, measure

__all__ = ["compare", "measure"]
