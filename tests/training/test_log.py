"""The log of a run that goes on: what is damaged in it is left out."""

from __future__ import annotations

import json

from peelcli.training.log import NAME, Log


def test_lines_that_are_damaged_are_dropped(tmp_path):
    good = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 2, 9)]
    odd = [b"\xff\xfe", b"[1]", b'{"step": "x"}', b'{"step"', b"[" * 100_000, b""]
    (tmp_path / NAME).write_bytes(b"\n".join([*(line.encode() for line in good), *odd, b'{"step": 3, "lo']))
    log = Log(tmp_path, "none", step=2)
    log.add(3, {"loss": 0.25})
    log.close(3)
    steps = [json.loads(line)["step"] for line in (tmp_path / NAME).read_text("utf-8").splitlines()]
    assert steps == [1, 2, 3]
