"""What an ONNX file costs, counted from its graph: no torch, no weights in memory, nothing is run."""
