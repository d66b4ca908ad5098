"""The Python API where it composes stages: what a plan keeps of its inputs, and makes of them again."""

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.errors import PlanError

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
