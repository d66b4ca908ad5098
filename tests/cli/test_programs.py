"""The real command on programs: in, out, and in again."""

from __future__ import annotations

import json

import torch
from torch import nn


def block(channels):
    return [nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_program_is_pruned_and_what_comes_out_is_pruned_again(run_peel, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(*block(3), *block(32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 16, 16),)), tmp_path / "net.pt2")
    outputs = ["--out", "slim.pt2", "--out", "slim.py"]
    first = result(run_peel("prune", "net.pt2", "--flops", "50%", *outputs, "--output-format", "json"))
    assert all(check["ok"] is not False for check in first["checks"])
    assert {path.name for path in tmp_path.iterdir()} >= {"slim.pt2", "slim.py", "slim.safetensors"}
    for again in (["slim.pt2"], ["slim.py:load", "--input", "1,3,16,16"]):
        second = result(run_peel("prune", *again, "--flops", "50%", "--output-format", "json"))
        assert not any("random" in note for note in second["notes"])
