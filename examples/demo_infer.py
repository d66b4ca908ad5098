"""Run a slim ONNX file in onnxruntime alone: no torch, no peel.

Usage: python demo_infer.py slim.onnx
"""

import json
import sys
import time

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
source, target = session.get_inputs()[0], session.get_outputs()[0]
figures = session.get_modelmeta().custom_metadata_map
print(f"{source.name} {source.shape} -> {target.name} {target.shape}")
after, before = (int(figures[name]) / 1e6 for name in ("peel.macs", "peel.macs_before"))
groups = len(json.loads(figures["peel.plan"])["groups"])
print(
    f"made by peel {figures['peel.version']}: {after:.1f} of {before:.1f} MMACs; the plan of {groups} groups is inside"
)

for batch in (1, 4):
    images = np.random.default_rng(0).standard_normal((batch, *source.shape[1:])).astype(np.float32)
    start = time.perf_counter()
    (scores,) = session.run(None, {source.name: images})
    print(f"batch {batch}: scores {scores.shape}, {1000 * (time.perf_counter() - start) / batch:.0f} ms a sample")
