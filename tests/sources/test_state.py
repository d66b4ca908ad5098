"""State dicts: wrappers, prefixes, and every key that does not match."""

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from peelcli.errors import SourceError
from peelcli.sources import state


def make(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


@pytest.fixture
def weights():
    torch.manual_seed(1)
    return make().state_dict()


def loaded(value, path, into=None):
    torch.save(value, path)
    module = into or make()
    return module, state.load_into(module, path)


def same(module, weights):
    return all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        lambda w: {"model_state_dict": w, "loss": 0.1},
        lambda w: {"model": w},
        lambda w: {"net": w, "acc": 90.0},
        lambda w: {"ema": w},
        lambda w: {"model_ema": {"module": w}},
        lambda w: {"ema_state_dict": {f"module.{name}": value for name, value in w.items()}},
        lambda w: {f"module.{name}": value for name, value in w.items()},
        lambda w: {f"_orig_mod.{name}": value for name, value in w.items()},
        lambda w: {"state_dict": {f"model.{name}": value for name, value in w.items()}},
        lambda w: {f"module._orig_mod.{name}": value for name, value in w.items()},
    ],
)
def test_usual_wrappers_and_prefixes(wrap, weights, tmp_path):
    module, _ = loaded(wrap(weights), tmp_path / "w.pt")
    assert same(module, weights)


def test_where_the_weights_stood_is_said(weights, tmp_path):
    other = {name: value + 1 for name, value in weights.items()}
    module, notes = loaded({"ema": other, "model": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "w.pt")
    assert same(module, weights)
    assert notes == ("weights taken from 'model' in w.pt", "prefix 'module.' taken off the names in w.pt")


def test_a_prefix_that_the_model_has_itself_stays(tmp_path):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make()

    source = Holder()
    module, notes = loaded(source.state_dict(), tmp_path / "w.pt", into=Holder())
    assert same(module, source.state_dict())
    assert notes == ()


def test_a_whole_module_gives_its_weights(weights, tmp_path):
    source = make()
    source.load_state_dict(weights)
    assert same(loaded({"model": source}, tmp_path / "w.pt")[0], weights)


def test_safetensors(weights, tmp_path):
    save_file(weights, tmp_path / "w.bin")
    module = make()
    assert state.load_into(module, tmp_path / "w.bin") == ()
    assert same(module, weights)


def test_safetensors_drops_a_name_of_tied_tensors(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    source, module = tied(), tied()
    save_model(source, str(tmp_path / "w.safetensors"))
    state.load_into(module, tmp_path / "w.safetensors")
    assert torch.equal(module[1].weight, source[0].weight)


def test_truncated_safetensors(weights, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    whole = path.read_bytes()
    for length in range(1, len(whole), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError) as caught:
            state.read(path)
        if length > 8:
            assert "truncated or damaged" in caught.value.message


def test_old_checkpoints_have_no_batch_counts(weights, tmp_path):
    del weights["1.num_batches_tracked"]
    module, _notes = loaded(dict(weights), tmp_path / "w.pt")
    assert same(module, {**weights, "1.num_batches_tracked": torch.tensor(0)})


def test_all_mismatches_are_listed(weights, tmp_path):
    weights["extra"] = torch.zeros(1)
    del weights["3.bias"]
    with pytest.raises(SourceError) as caught:
        loaded(weights, tmp_path / "w.pt", into=make(8))
    message = caught.value.message
    assert (
        "in 9 keys: missing 3.bias; unexpected extra; 0.weight is 4x3x3x3 in the file, 8x3x3x3 in the model" in message
    )
    assert "1.running_var is 4 in the file, 8 in the model" in message
    assert "\n" not in message


def test_twenty_mismatches_and_a_count(tmp_path):
    with pytest.raises(SourceError) as caught:
        loaded({f"k{i}": torch.zeros(1) for i in range(50)}, tmp_path / "w.pt")
    assert "in 58 keys: " in caught.value.message
    assert caught.value.message.count("; ") == 20
    assert caught.value.message.endswith("; and 38 more")


def test_a_mismatch_leaves_the_module_alone(weights, tmp_path):
    module = make()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    del weights["3.bias"]
    with pytest.raises(SourceError):
        loaded(weights, tmp_path / "w.pt", into=module)
    assert same(module, before)


def test_a_cast_is_said(weights, tmp_path):
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    assert loaded(half, tmp_path / "w.pt")[1] == ("weights are float16 in the file and became float32 in the model",)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(3), "a single tensor"),
        ([1, 2], "an object of type list"),
        ({}, "a dict with nothing in it"),
        ({"epoch": 3, "lr": 0.1}, "a dict with the keys epoch, lr"),
        ({"state_dict": {}}, "a dict with the keys state_dict"),
    ],
)
def test_files_with_something_else(value, said, tmp_path):
    with pytest.raises(SourceError) as caught:
        loaded(value, tmp_path / "w.pt")
    assert f"holds {said}, neither a module nor a state dict" in caught.value.message


def test_weights_of_scripts_and_exported_programs_are_read(tmp_path):
    module = nn.Linear(3, 2).eval()
    torch.jit.trace(module, torch.zeros(1, 3)).save(tmp_path / "m.pt")
    torch.export.save(torch.export.export(nn.Sequential(module), (torch.zeros(1, 3),)), tmp_path / "m.pt2")
    assert torch.equal(state.read(tmp_path / "m.pt")["weight"], module.weight)
    assert torch.equal(state.read(tmp_path / "m.pt2").state_dict()["0.weight"], module.weight)
