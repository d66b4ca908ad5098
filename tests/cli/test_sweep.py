"""`peel sweep` as a user runs it."""

from __future__ import annotations

import json

import torch

from tests.cli.conftest import small_cnn


def test_a_curve_with_its_picture(run_peel, tmp_path):
    torch.save(small_cnn().eval(), tmp_path / "net.pt")
    torch.save(torch.randn(20, 3, 8, 8), tmp_path / "samples.pt")
    arguments = (
        "net.pt",
        "--input",
        "1,3,8,8",
        "--flops",
        "80%,60%,40%,0.1%",
        "--data",
        "samples.pt",
        "--out",
        "curve",
    )
    done = run_peel("sweep", *arguments, "--plot", "curve.svg", "--output-format", "json")
    assert done.returncode == 1, done.stderr  # one budget is out of reach
    found = json.loads(done.stdout)
    assert [point["budget"] for point in found["points"]] == ["80%", "60%", "40%", "0.1%"]
    assert "out of reach" in found["points"][3]["failed"] or "the least MACs" in found["points"][3]["failed"]
    assert found["points"][0]["fidelity"]["held"] == 4
    picture = (tmp_path / "curve.svg").read_text("utf-8")
    assert "<svg" in picture
    assert "tests" not in picture  # no path of this machine


def test_bad_flags_are_told_at_once(run_peel, tmp_path):
    for arguments, message in (
        (("net.pt", "--flops", "50%", "--plot", "curve.gif"), "unknown suffix .gif"),
        (("net.pt", "--flops", "50%", "--jobs", "0"), "--jobs"),
    ):
        done = run_peel("sweep", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
