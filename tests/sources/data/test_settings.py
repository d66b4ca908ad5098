"""The settings of calibration, and that every flag has one."""

from __future__ import annotations

import pytest

from peelcli.cli import options
from peelcli.config import Calibration, Settings, check_names, pick
from peelcli.errors import UsageError


def test_numbers_as_text_number_and_list():
    for given in ("0.485, 0.456,0.406", [0.485, 0.456, 0.406]):
        assert pick(Calibration, {"mean": given}).mean == (0.485, 0.456, 0.406)
    assert pick(Calibration, {"std": 1}).std == (1.0,)
    assert pick(Calibration, {}).mean is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": "a,b"}, "--mean a,b: 'a,b' is not a list of numbers such as 0.485,0.456,0.406"),
        ({"mean": "nan"}, "--mean nan: "),
        ({"mean": []}, "--mean []: "),
        ({"std": "0.1,0,0.2"}, "--std 0.0: Input should be greater than 0"),
        ({"samples": 1}, "--samples 1: "),
        ({"image_size": 0}, "--image-size 0: "),
        ({"repair": "some"}, "--repair some: "),
    ],
)
def test_values_that_make_no_sense(settings, said):
    with pytest.raises(UsageError) as caught:
        pick(Calibration, settings)
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_every_setting_has_a_name_and_a_flag():
    check_names(dict.fromkeys(Calibration.model_fields))
    assert set(Calibration.model_fields) <= set(Settings.__annotations__)
    assert {*options.SAMPLES, *options.REPAIR} == set(Calibration.model_fields)
