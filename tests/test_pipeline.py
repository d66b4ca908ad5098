"""The Python API where it composes stages: what a plan keeps of its inputs, and makes of them again."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli import plans
from peelcli.errors import InputError, PeelError, PlanError, UsageError
from peelcli.samples import spread
from tests.cli.conftest import files_in
from tests.support import zoo

CODE = """
import torch
from torch import nn

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(500, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 7)

    def forward(self, batch, scale=1.0):
        h = self.table(batch["ids"]) * scale
        return self.down(torch.relu(self.up(h)).mean(1))

def text(): return Text()
def example(): return {"batch": {"ids": torch.randint(0, 500, (2, 12))}, "scale": 0.5}
"""


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "texts.py"
    file.write_text(CODE)
    return f"{file}:text"


def test_a_plan_makes_its_inputs_again_from_their_text(model):
    plan = peel.plan(model, flops="60%", align=1, input=["batch.ids=2x16:int64:<500", "scale=0.5"])
    assert plan.inputs == ("{ids=2x16:int64:<500}", "0.5")
    assert peel.apply(model, plan).run.plan == plan


def test_a_plan_made_with_a_function_of_the_users_asks_for_it_again(model):
    example = model.replace(":text", ":example")
    plan = peel.plan(model, flops="60%", align=1, inputs=example)
    assert plan.inputs[0].startswith("--inputs texts.py:example ({ids=2x12:int64:")
    with pytest.raises(PlanError) as caught:
        peel.apply(model, plan)
    assert caught.value.hint == "give the same example: --inputs texts.py:example"
    assert peel.apply(model, plan, inputs=example).run.plan == plan


def test_settings_of_the_input_go_with_a_module_too():
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    assert peel.load(module, input=["2,3,9,9"]).inputs[0].shape == (2, 3, 9, 9)
    assert peel.load(module, {"input": torch.zeros(1, 3, 8, 8)}).inputs[0].shape == (1, 3, 8, 8)


# --- with samples


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


DATA = drawn(40, 3, 16, 16)
HALF = {"flops": "50%", "align": 1}


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def test_samples_choose_widths_repair_the_slim_model_and_compare_it():
    subject = zoo.subject("resnet")
    before = weights(subject.module)
    slim, run = peel.prune(subject.module, subject.inputs[0], **HALF, data=DATA)
    assert (run.fidelity.fitted, run.fidelity.held) == (32, 8)
    assert run.fidelity.repaired.relative < 0.5 * run.fidelity.cut.relative
    assert sum(candidate.chosen for candidate in run.candidates) == 1
    assert "score: reconstruction, because there are samples" in run.plan.notes
    settings = dict(run.plan.settings)
    assert settings["score"] == "reconstruction"
    assert settings["samples"] == "32"
    assert settings["allocate"] in {"peel", "greedy", "uniform"}
    assert all(check.ok for check in run.checks)
    assert sum(p.numel() for p in slim.parameters()) == run.after.params
    assert same(weights(subject.module), before)
    held = DATA[spread(len(DATA), len(DATA) // 5)]
    with torch.no_grad():
        wanted, found = subject.module(held).double(), slim(held).double()
    deviation = (wanted - wanted.mean(0)).square().sum().sqrt()
    assert float((found - wanted).square().sum().sqrt() / deviation) == pytest.approx(
        run.fidelity.repaired.relative, rel=1e-3
    )


def test_the_same_samples_and_seed_give_the_same_plan_and_model():
    one, two = (peel.prune(zoo.subject("resnet"), **HALF, data=DATA) for _ in range(2))
    assert plans.to_json(one.run.plan) == plans.to_json(two.run.plan)
    assert same(weights(one.model), weights(two.model))


@pytest.mark.parametrize("seed", [0, 3])
def test_prune_is_plan_and_apply_with_samples_too(tmp_path, seed):
    subject = zoo.subject("resnet")
    slim, run = peel.prune(subject, **HALF, data=DATA, seed=seed)
    plan = peel.plan(subject, **HALF, data=DATA, seed=seed, out=tmp_path / "plan.json")
    assert plan == run.plan
    applied, again = peel.apply(subject, tmp_path / "plan.json", data=DATA)
    assert again.plan == plan
    assert again.candidates == ()
    assert again.fidelity == run.fidelity
    assert same(weights(applied), weights(slim))


def test_a_plan_is_applied_without_samples_as_it_was_cut():
    subject = zoo.subject("resnet")
    plan = peel.plan(subject, **HALF, data=DATA)
    assert peel.apply(subject, plan).run.fidelity is None
    run = peel.apply(subject, plan, data=DATA, repair="none").run
    assert run.fidelity.repaired is None
    assert run.fidelity.cut.relative > 0


def test_repair_can_be_left_away_and_the_choice_is_made_without_it():
    run = peel.prune(zoo.subject("resnet"), **HALF, data=DATA, repair="none").run
    assert run.fidelity.repaired is None
    chosen = next(candidate for candidate in run.candidates if candidate.chosen)
    assert chosen.distance == run.fidelity.cut
    assert chosen.distance.kl == min(candidate.distance.kl for candidate in run.candidates)


def test_an_allocation_that_was_asked_for_is_not_compared():
    run = peel.prune(zoo.subject("resnet"), **HALF, data=DATA, allocate="uniform").run
    assert run.candidates == ()
    assert dict(run.plan.settings)["allocate"] == "uniform"
    run = peel.prune(zoo.subject("resnet"), **HALF).run  # auto, without samples
    assert run.candidates == ()
    assert dict(run.plan.settings)["allocate"] == "peel"


def test_a_budget_that_is_met_needs_no_repair():
    run = peel.prune(zoo.subject("resnet"), flops="100%", data=DATA).run
    assert run.fidelity.cut.relative == 0.0
    assert run.fidelity.repaired is None
    assert run.candidates == ()


@pytest.mark.parametrize(
    "name", ["mobilenet", "transposed_groups", "narrow_groups", "recurrent", "convnext", "densenet"]
)
def test_networks_of_all_kinds_with_few_samples(name):
    subject = zoo.subject(name)
    data = drawn(7, *subject.inputs[0].shape[1:])
    slim, run = peel.prune(subject, params="80%", align=1, data=data)
    assert math.isfinite(run.fidelity.cut.relative)
    assert sum(p.numel() for p in slim.parameters()) == run.after.params
    if run.fidelity.repaired:
        better = [d.relative if d.kl is None else d.kl for d in (run.fidelity.repaired, run.fidelity.cut)]
        assert better[0] < better[1]


def test_a_model_that_takes_one_sample_at_a_time():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.fc = nn.Linear(16 * 64, 5)

        def forward(self, x):
            return self.fc(self.b(self.a(x).relu()).relu().reshape(1, -1))

    torch.manual_seed(0)
    run = peel.prune(Fixed().eval(), drawn(1, 3, 8, 8), **HALF, data=drawn(20, 3, 8, 8)).run
    assert (run.fidelity.fitted, run.fidelity.held) == (16, 4)
    assert math.isfinite(run.fidelity.cut.kl)


CODE_OF_DATA = """
def raises():
    raise ValueError("the disk is away")
def stops():
    import torch
    yield torch.zeros(3, 16, 16)
    raise ValueError("the disk is away")
def nothing():
    return []
def number():
    return 7
def metric(outputs, targets):
    raise ValueError("no targets")
"""

BAD_DATA = {
    "another shape": (drawn(9, 4, 16, 16), ["4x16x16"]),
    "nan": (DATA * math.nan, ["40 of 40 samples hold NaN"]),
    "one sample": (DATA[:1], ["at least 2"]),
    "no samples": ([], ["no sample"]),
    "an array of text": (np.array(["a", "b"]), []),
    "no such file": ("{folder}/nowhere.npy", ["nowhere.npy", "no such file"]),
    "a broken file": ("{folder}/broken.npy", ["broken.npy"]),
    "an empty folder": ("{folder}/empty", ["empty", "image"]),
    "another kind of file": ("{folder}/data.py", ["data.py", ":NAME"]),
    "a function that raises": ("{folder}/data.py:raises", ["ValueError", "the disk is away"]),
    "a generator that raises": ("{folder}/data.py:stops", ["ValueError", "the disk is away"]),
    "a function that gives nothing": ("{folder}/data.py:nothing", ["no sample"]),
    "a function that gives a number": ("{folder}/data.py:number", ["int"]),
    "no such function": ("{folder}/data.py:raisse", ["raisse", "raises"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_samples_are_one_line_with_a_hint_before_any_work(tmp_path, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npy").write_text("no numbers")
    (tmp_path / "data.py").write_text(CODE_OF_DATA)
    data, words = BAD_DATA[case]
    data = data.format(folder=tmp_path) if isinstance(data, str) else data
    before, told = files_in(tmp_path), []
    with pytest.raises(PeelError) as caught:
        peel.prune(
            zoo.subject("resnet"), **HALF, data=data, out=tmp_path / "slim.pt", progress=lambda s, *_: told.append(s)
        )
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message + caught.value.hint
    assert set(told) <= {"load", "samples"}
    assert files_in(tmp_path) == before


def test_a_metric_that_raises_is_told_before_any_work(tmp_path):
    (tmp_path / "data.py").write_text(CODE_OF_DATA)
    with pytest.raises(InputError, match="no targets"):
        peel.prune(zoo.subject("resnet"), **HALF, data=DATA, metric=f"{tmp_path}/data.py:metric")


def test_what_reads_samples_is_refused_without_them():
    with pytest.raises(UsageError, match="--repair goes with samples"):
        peel.prune(zoo.subject("resnet"), **HALF, repair="auto")
    peel.plan(zoo.subject("mlp"), flops="50%", repair="none")


def test_a_run_tells_layers_and_where_that_fails_says_so(monkeypatch):
    subject = zoo.subject("vgg_flatten")
    run = peel.prune(subject, flops="80%", align=1).run
    before, after = run.sides
    assert (sum(layer.macs for layer in before.layers), before.kind) == (run.plan.before.macs, "original")
    assert (sum(layer.macs for layer in after.layers), after.kind) == (run.after.macs, "slim")
    assert len(run.backbone) == len(run.plan.cuts)

    def broken(*_):
        raise RuntimeError("not\nlike this")

    monkeypatch.setattr("peelcli.graph.footprint.peak_bytes", broken)
    run = peel.prune(subject, flops="80%", align=1).run
    assert run.sides is None
    assert run.notes[-1] == "costs are not told layer by layer: RuntimeError: not like this"
