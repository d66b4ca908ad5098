"""Settings: what can be built, what can't, and what is said then."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli import config
from peelcli.config import Budget, Calibration, GraphForm, Options, Quantity, Source
from peelcli.errors import UsageError
from peelcli.regimen import Rounds, Training


def budget(**settings) -> Budget:
    return config.pick(Budget, settings)


@pytest.mark.parametrize(
    ("given_as", "amount", "percent"),
    [
        ("1G", 10**9, False), ("50%", 50, True), ("12.5 %", Fraction(25, 2), True), (4_000_000, 4_000_000, False),
        (2.5e6, 2_500_000, False), ("100%", 100, True), ("1", 1, False), (Quantity(amount=7), 7, False),
    ],
)  # fmt: skip
def test_budgets_that_can_be_built(given_as, amount, percent):
    assert budget(flops=given_as).flops == Quantity(amount=amount, percent=percent)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("abc", "'abc' is not a number such as 1G, 250M or 50%"),
        ("", "'' is not a number such as 1G, 250M or 50%"),
        ("0", "a budget must be above zero, not 0"),
        ("0%", "a budget must be above zero, not 0%"),
        (-3, "a budget must be above zero, not -3"),
        ("101%", "a budget of 101% is more than the whole model"),
        (0.5, "a budget of 0.5 is less than one; for half of the original write 50%"),
        ("0.5", "a budget of 0.5 is less than one; for half of the original write 50%"),
        (True, "True is not a number such as 1G, 250M or 50%"),
        ([1], "[1] is not a number such as 1G, 250M or 50%"),
        (float("inf"), "inf is not a number such as 1G, 250M or 50%"),
    ],
)
def test_budgets_that_can_t(value, reason):
    with pytest.raises(UsageError) as caught:
        budget(flops=value)
    assert caught.value.message == f"--flops {value}: {reason}"
    assert caught.value.hint == "write a count or a share of the original, e.g. --flops 1G or --flops 50%"
    with pytest.raises(UsageError, match=r"^--params "):
        budget(params=value)


def test_not_a_number_is_refused():
    with pytest.raises(UsageError, match=r"^--flops nan: "):
        budget(flops=float("nan"))


def test_no_budget_at_all():
    with pytest.raises(UsageError) as caught:
        budget(align=8, flops=None)
    assert (caught.value.message, caught.value.hint) == (
        "no budget was given", "give --flops, e.g. --flops 50%, or --params, or --latency"
    )  # fmt: skip


def test_bounds_are_rounded_down():
    assert Quantity(amount=Fraction(1, 3), percent=True).of(1000) == 3
    assert Quantity(amount=50, percent=True).of(7) == 3
    assert Quantity(amount=Fraction(7, 2)).of(10**9) == 3
    assert Quantity(amount=100, percent=True).of(10**18 + 1) == 10**18 + 1  # no float in between


@given(st.integers(1, 100), st.integers(0, 10**18))
def test_a_share_is_never_more_than_its_part(percent, original):
    bound = Quantity(amount=percent, percent=True).of(original)
    assert bound * 100 <= percent * original < (bound + 1) * 100


@pytest.mark.parametrize("text", ["1000000000", "50%", "12.5%"])
def test_a_quantity_is_written_as_it_can_be_read(text):
    assert str(budget(flops=text).flops) == text
    assert budget(flops=str(budget(flops=text).flops)) == budget(flops=text)


def test_budgets_are_frozen_and_written_as_text():
    made = budget(flops="50%", params="5M")
    assert made.model_dump(exclude_none=True) == {"flops": "50%", "params": "5000000"}
    with pytest.raises(ValueError, match="frozen"):
        made.flops = None


def test_defaults():
    options = Options()
    assert (options.align, options.allocate, options.score) == ("auto", "auto", "auto")
    assert (options.min_keep, options.pool, options.tau, options.seed, options.ignore) == (0.1, 0.5, 1.0, 0, ())


@pytest.mark.parametrize(("value", "align"), [("auto", "auto"), (8, 8), ("8", 8), ("16", 16)])
def test_align(value, align):
    assert config.pick(Options, {"align": value}).align == align


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("align", 0, "--align 0: "), ("align", "eight", "--align eight: "), ("align", -8, "--align -8: "),
        ("min_keep", 0, "--min-keep 0: "), ("min_keep", 1.1, "--min-keep 1.1: "), ("pool", 1, "--pool 1: "),
        ("pool", 0, "--pool 0: "), ("tau", -1, "--tau -1: "), ("seed", -1, "--seed -1: "),
        ("seed", 0.5, "--seed 0.5: "), ("allocate", "best", "--allocate best: "),
    ],
)  # fmt: skip
def test_options_that_can_t_be_built(name, value, said):
    with pytest.raises(UsageError) as caught:
        config.pick(Options, {name: value})
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_each_model_picks_its_own_settings():
    settings = {"flops": "1G", "align": 8, "input": ["1,3,224,224"], "seed": None}
    assert config.pick(Budget, settings) == Budget(flops="1G")
    assert config.pick(Options, settings) == Options(align=8)
    assert config.pick(Source, settings) == Source(input=("1,3,224,224",))


def test_one_text_is_a_list_of_one():
    assert config.pick(Source, {"input": "1,3,224,224"}).input == ("1,3,224,224",)
    assert config.pick(Options, {"ignore": "layer4.*"}).ignore == ("layer4.*",)


def test_calibration_without_data():
    made = Calibration()
    assert (made.data, made.samples, made.repair, made.device) == (None, 256, "auto", "cpu")
    assert (made.image_size, made.mean, made.std, made.metric) == (None, None, None, None)


@pytest.mark.parametrize("value", ["0.5,0.25, 1", [0.5, 0.25, 1], (0.5, 0.25, 1.0)])
def test_means_as_flag_toml_and_python(value):
    made = config.pick(Calibration, {"mean": value, "std": value})
    assert made.mean == made.std == (0.5, 0.25, 1.0)
    assert config.pick(Calibration, {"mean": 0.5}).mean == (0.5,)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mean", "a,b", "--mean a,b: 'a,b' is not a list of numbers such as 0.485,0.456,0.406"),
        ("mean", "", "--mean : '' is not a list"), ("mean", [], "--mean []: "), ("mean", "nan", "--mean nan: "),
        ("std", "0.5,0", "--std 0.0: "), ("samples", 1, "--samples 1: "), ("image_size", 0, "--image-size 0: "),
        ("repair", "some", "--repair some: "),
    ],
)  # fmt: skip
def test_calibration_that_can_t_be_built(name, value, said):
    with pytest.raises(UsageError) as caught:
        config.pick(Calibration, {name: value})
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_unknown_names_are_refused_with_the_nearest():
    config.check_names({"flops": 1, "min_keep": 1, "trust": True})
    with pytest.raises(UsageError) as caught:
        config.check_names({"flop": 1})
    assert (caught.value.message, caught.value.hint) == ("there is no setting 'flop'", "did you mean flops?")
    with pytest.raises(UsageError) as caught:
        config.check_names({"zzz": 1})
    assert caught.value.hint.startswith("did you mean flops, params, ")


def test_the_python_api_s_keywords_are_the_fields():
    kinds = (Budget, Options, Source, GraphForm, Calibration, Training, Rounds)
    assert set(config.Settings.__annotations__) == {name for kind in kinds for name in kind.model_fields}


@pytest.mark.parametrize(
    ("text", "share", "written"),
    [("5ms", 0.5, "5ms"), ("800us", 0.08, "0.8ms"), ("2s", 200, "2s"), ("50%", 0.5, "50%")],
)
def test_a_bound_of_latency(text, share, written):
    budget = config.pick(Budget, {"latency": text})
    assert budget.latency.share_of(0.01) == pytest.approx(share)
    assert str(budget.latency) == written
    assert budget.model_dump(exclude_none=True) == {"latency": written}


@pytest.mark.parametrize("value", ["5", "5h", "0ms", "-1%", "101%", 5, 0.5, ""])
def test_no_bound_of_latency(value):
    with pytest.raises(UsageError, match="--latency"):
        config.pick(Budget, {"latency": value})


def test_bounds_that_are_read_already_are_taken_as_they_are():
    bound = Budget(latency="5ms").latency
    assert Budget(latency=bound).latency == bound


@pytest.mark.parametrize(("data", "synthetic"), [(None, False), ("synthetic", True), ("samples.npz", False)])
def test_whether_samples_are_made_up(data, synthetic):
    assert Calibration(data=data).synthetic is synthetic


def judge(outputs, targets):
    return 1.0


def test_functions_are_kept_as_they_are_and_told_by_name():
    found = config.pick(Calibration, {"metric": judge})
    assert found.metric is judge
    assert found.model_dump()["metric"] == f"{__name__}:judge"
    assert config.pick(Training, {"steps": 1, "loss": "own.py:gap"}).model_dump()["loss"] == "own.py:gap"
    with pytest.raises(UsageError, match="--metric 3: "):
        config.pick(Calibration, {"metric": 3})


def test_a_device_may_be_one_of_torch():
    torch = pytest.importorskip("torch")
    assert config.pick(Calibration, {"device": torch.device("cuda", 1)}).device == "cuda:1"
