"""Factories and --code: found, run once, and told where they fail."""

import random
import sys
import textwrap

import pytest
import torch
from torch import nn

from peelcli.errors import SourceError
from peelcli.sources import usercode


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a Python file into a folder of its own; what it adds to sys.modules goes away again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)

    def write(text, name="factory.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


NETWORK = "from torch import nn\ndef make():\n    return nn.Linear(3, 2)\n"


def test_a_factory_in_a_file(write):
    path = write(NETWORK, "a folder/fäctory.py")
    assert isinstance(usercode.build(f"{path}:make"), nn.Linear)
    assert not list(path.parent.glob("__pycache__"))
    assert str(path.parent) not in sys.path


def test_a_factory_in_a_package_beside_the_user(write):
    write("", "zoo/__init__.py")
    write(NETWORK, "zoo/nets.py")
    assert isinstance(usercode.build("zoo.nets:make"), nn.Linear)


def test_a_class_is_a_factory(write):
    write("from torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n")
    assert type(usercode.build("factory.py:Net")).__name__ == "Net"


def test_weights_are_the_same_in_every_run_and_nobodys_random_state_changes(write):
    write("import random\n" + NETWORK.replace("nn.Linear(3, 2)", "nn.Linear(3, random.randint(1, 1000))"))
    torch.manual_seed(5)
    random.seed(5)
    states = torch.get_rng_state(), random.getstate()
    first = usercode.build("factory.py:make")
    torch.manual_seed(6)
    second = usercode.build("factory.py:make")
    assert torch.equal(first.weight, second.weight)
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_a_file_runs_once(write):
    path = write("import torch\nRUNS = []\nRUNS.append(1)\n", "counted.py")
    assert usercode.run_file(path) is usercode.run_file(path)
    assert sys.modules["counted"] is usercode.run_file(path)


def test_a_file_hides_no_module_of_its_name(write):
    write("x = 1", "first/twin.py")
    path = write("x = 2", "second/twin.py")
    one, two = usercode.run_file(path.parent.parent / "first" / "twin.py"), usercode.run_file(path)
    assert (one.x, two.x) == (1, 2)
    assert one.__name__ == "twin"
    named_json = usercode.run_file(write("x = 3", "json.py"))
    assert named_json.x == 3
    assert sys.modules["json"] is not named_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "def make():\n    raise ValueError('no data\\nat all')\n",
            "factory.py:make raised ValueError: no data (factory.py:2)",
        ),
        ("def make():\n    import torch\n    torch.zeros(2) @ torch.zeros(3)\n", "(factory.py:3)"),
        ("def make(width): pass\n", "factory.py:make raised TypeError: make() missing 1 required positional argument"),
        ("def make(): exit(3)\n", "factory.py:make raised SystemExit: 3 (factory.py:1)"),
        ("def make(): return 7\n", "factory.py:make returned int, not a torch.nn.Module"),
        ("def make(): pass\n", "factory.py:make returned NoneType, not a torch.nn.Module"),
        ("x = 1\nx = = 2\n", "factory.py failed while it ran: SyntaxError: invalid syntax (factory.py:2)"),
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all' (factory.py:1)"),
        ("1 / 0\n", "factory.py failed while it ran: ZeroDivisionError: division by zero (factory.py:1)"),
        ("make = 3\n", "factory.py:make is no function but int"),
        ("def mark(): pass\n", "factory.py has no function make"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line_with_its_place(write, text, said):
    write(text)
    with pytest.raises(SourceError) as caught:
        usercode.build("factory.py:make")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_file_that_fails_leaves_no_module(write):
    write("1 / 0\n", "broken_file.py")
    with pytest.raises(SourceError):
        usercode.run_file(write("1 / 0\n", "broken_file.py"))
    assert "broken_file" not in sys.modules


def test_near_names_are_offered(write):
    write("def make_model(): pass\n")
    with pytest.raises(SourceError) as caught:
        usercode.build("factory.py:make_modle")
    assert caught.value.hint == "did you mean factory.py:make_model?"


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("absent.py:make", "absent.py: no such file"),
        ("absent_package.nets:make", "there is no module absent_package"),
        ("no colon", "names no factory"),
        ("factory.py:", "names no factory"),
    ],
)
def test_factories_that_are_not_there(write, factory, said):
    with pytest.raises(SourceError, match=said):
        usercode.build(factory)
