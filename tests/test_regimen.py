"""Settings of training: which values there are."""

from __future__ import annotations

import pytest

from peelcli import config
from peelcli.errors import UsageError
from peelcli.regimen import Training

SIZES = ["epochs", "rate", "weight_decay", "clip", "temperature", "mixup", "ema", "label_smoothing", "warmup"]


@pytest.mark.parametrize("name", [*SIZES, "distill", "batch", "steps"])
@pytest.mark.parametrize("value", ["inf", "nan", 1e300, -1])
def test_what_no_arithmetic_can_be_done_with_is_refused(name, value):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{flag} .*: ") as caught:
        config.pick(Training, {name: value} if name == "epochs" else {"steps": 1, name: value})
    assert caught.value.hint


def test_an_average_never_stands_still():
    with pytest.raises(UsageError, match="less than 1"):
        config.pick(Training, {"steps": 1, "ema": 1.0})
    assert config.pick(Training, {"epochs": 0.5, "ema": 0}).epochs == 0.5
