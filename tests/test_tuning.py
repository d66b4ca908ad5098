"""Training through the Python API: what is learned, what is kept, what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli import tuning
from peelcli.errors import PeelError
from peelcli.regimen import Training
from peelcli.training import loop
from peelcli.training.feed import reseed
from tests.support.lessons import CLASSES, images, network, pruned

OWN = """
import torch
def gap(outputs, targets): return torch.nn.functional.cross_entropy(outputs, targets)
def row(outputs, targets): return (outputs - 1).square().mean(1)
def number(outputs, targets): return 3.0
def still(outputs, targets): return outputs.detach().sum()
def sums(outputs, targets): return outputs.sum() + targets.sum()
def nan(outputs, targets): return outputs.sum() * float("nan")
calls = []
def later(outputs, targets):
    calls.append(1)
    return outputs.square().mean() * (float("nan") if len(calls) > 9 else 1)
def score(outputs, targets): return float((outputs.argmax(1) == targets).float().mean())
"""


@pytest.fixture(scope="module")
def pair():
    model = network()
    return model, pruned(model).model


@pytest.fixture(scope="module")
def labelled(pair):
    x = images(120)
    with torch.no_grad():
        return x, pair[0](x).argmax(1)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def tuned(pair, data=None, example=None, **settings):
    settings = {"steps": 30, "batch": 16, **settings}
    example = images(1) if example is None else example
    data = images(120) if data is None else data
    return peel.finetune(pair[1], example, teacher=pair[0], data=data, **settings)


def refused(*arguments, **settings):
    with pytest.raises(PeelError) as caught:
        tuned(*arguments, **settings)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message


def test_the_original_s_answers_are_learned_without_labels(pair):
    before = {name: value.clone() for name, value in pair[1].state_dict().items()}
    slim, run = tuned(pair)
    (found,) = run.tunings
    assert found.after.kl < 0.6 * found.before.kl
    assert (found.trained, found.held, found.steps) == (96, 24, 30)
    assert "KL at temperature 4" in found.objective
    assert [point.step for point in found.curve] == [0, 6, 12, 18, 24, 30]
    x = images(24, seed=5)
    with torch.no_grad():
        assert (slim(x) - pair[0](x)).norm() < (pair[1](x) - pair[0](x)).norm()
    assert not slim.training
    assert all(torch.equal(value, pair[1].state_dict()[name]) for name, value in before.items())


def test_a_run_repeats_bit_for_bit_and_another_seed_does_not(pair):
    one, two, three = (tuned(pair, steps=8, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not all(torch.equal(value, three[name]) for name, value in one.items())


WAYS = {
    "features": {},
    "labels": {"distill": 0.5, "mixup": 0.3},
    "augmented": {"augment": "flip,shift"},
    "bf16": {"precision": "bf16"},
    "adamw in parts": {"optimizer": "adamw", "rate": 3e-3, "accumulate": 2, "clip": 1.0},
    "frozen norms": {"batchnorm": "frozen", "rate": 3e-3},
}


@pytest.mark.parametrize("way", WAYS, ids=[name.replace(" ", "-") for name in WAYS])
def test_every_way_to_train_brings_the_model_nearer(pair, labelled, way, tmp_path):
    if way == "features":
        model = network()
        pruned(model, tmp_path / "slim.safetensors")
        run = peel.finetune(
            tmp_path / "slim.safetensors",
            images(1),
            teacher=model,
            data=images(120),
            steps=30,
            batch=16,
            match="features",
        ).run
    else:
        run = tuned(pair, labelled, **WAYS[way]).run
    (found,) = run.tunings
    assert found.after.kl < found.before.kl


def test_accumulated_gradients_are_those_of_the_whole_batch():
    pair = network(norm=False).double(), pruned(network(norm=False)).model.double()
    data, example = images(40).double(), images(1).double()
    one, two = (
        tuned(pair, data, example, steps=3, accumulate=parts, evaluate_every=1).run.tunings[0].curve for parts in (1, 3)
    )
    assert [p.loss for p in one[1:]] == pytest.approx([p.loss for p in two[1:]], rel=1e-9)


def test_labels_are_learned_without_an_original(pair, labelled):
    run = peel.finetune(pair[1], images(1), data=labelled, steps=40, batch=16, distill=0).run
    (found,) = run.tunings
    assert found.metric == "accuracy"
    assert found.after.metric > found.before.metric
    assert found.original is None


def test_a_loss_and_a_metric_of_ones_own(pair, labelled, own):
    (found,) = tuned(pair, labelled, distill=0.2, loss=own("gap"), metric=own("score"), steps=20).run.tunings
    assert found.metric == "score"
    assert found.after.metric >= found.before.metric
    assert found.objective.endswith("0.8 x a loss of one's own")


def test_in_python_loss_and_metric_are_functions(pair, labelled):
    def gap(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    class Right:
        def __call__(self, outputs, targets):
            return (outputs.argmax(1) == targets).float().mean()

    settings = {"distill": 0.2, "loss": gap, "metric": Right(), "device": torch.device("cpu")}
    (found,) = tuned(pair, labelled, steps=20, **settings).run.tunings
    assert found.metric == "Right"
    assert found.after.metric >= found.before.metric
    assert found.objective.endswith("0.8 x a loss of one's own")


def test_outputs_that_are_no_classes_are_matched_as_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh(), nn.Conv2d(16, 2, 1)).eval()
    slim = pruned(model).model
    (found,) = tuned((model, slim)).run.tunings
    assert found.after.relative < found.before.relative
    assert found.after.kl is None
    assert "L2" in found.objective


def test_what_training_does_not_improve_stays_as_it_came(pair):
    perfect = pair[0], pair[0]
    slim, run = tuned(perfect, steps=3, rate=1.0)
    assert run.tunings[0].kept == 0
    assert all(torch.equal(v, pair[0].state_dict()[n]) for n, v in slim.state_dict().items())
    assert any("no nearer" in note for note in run.tunings[0].notes)


def test_a_data_set_is_read_each_time_it_is_wanted(pair):
    class Reads:
        def __init__(self):
            self.x, self.seen = images(40), []

        def __len__(self):
            return 40

        def __getitem__(self, at):
            self.seen.append(at)
            return self.x[at] + 0.01 * torch.randn(1)

    data = Reads()
    found = tuned(pair, data, epochs=2, steps=None, batch=8, workers=0).run.tunings[0]
    assert (found.trained, found.held, found.steps) == (32, 8, 8)
    assert len(data.seen) > 2 * 32
    again = tuned(pair, Reads(), epochs=2, steps=None, batch=8, workers=1).run.tunings[0]
    assert [p.loss for p in again.curve] == [p.loss for p in found.curve]


def test_cut_and_trained_in_one_go_and_in_rounds():
    model = network()
    for rounds in (1, 2):
        slim, run = peel.prune(
            model, images(1), flops="40%", align=4, data=images(120), finetune="20steps", batch=16, rounds=rounds
        )
        assert len(run.tunings) == rounds
        assert run.after == run.plan.predicted
        assert run.after.macs <= 0.4 * run.plan.before.macs
        assert all(check.ok is not False for check in run.checks)
        again = peel.apply(model, run.plan, images(1)).model  # several rounds are one plan of the original
        assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in slim.state_dict().items()}
        assert all(cut.width in cut.group.legal_widths() for cut in run.plan.cuts)


# --- ends before the end


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def ends_at(step):
    """Progress that asks the process to end, once, when so many steps are done."""
    asked = []

    def progress(stage, done=0, total=0, text=""):
        if stage == "tune" and total and done >= step and not asked:
            asked.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def test_asked_to_end_it_saves_and_goes_on_with_the_same_losses(pair, tmp_path, monkeypatch):
    """SIGTERM at some step, twice; in the end all is as if nothing had been."""
    whole = tuned(pair, checkpoints=tmp_path / "whole", evaluate_every=4)

    for end in (7, 21):  # in the middle of a step, between looks at losses

        def seeded(seed, step, rank, end=end):
            reseed(seed, step, rank)
            if step == end:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop, "reseed", seeded)
        with pytest.raises(PeelError, match=f"after step {end + 1} of 30; the checkpoint of step {end + 1}") as caught:
            tuned(pair, checkpoints=tmp_path / "parts", resume=end > 7, evaluate_every=4)
        assert "--resume" in caught.value.hint
    monkeypatch.setattr(loop, "reseed", reseed)
    parts = tuned(pair, checkpoints=tmp_path / "parts", resume=True, evaluate_every=4)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert all(torch.equal(v, whole.model.state_dict()[n]) for n, v in parts.model.state_dict().items())
    assert parts.run.tunings[0].curve == whole.run.tunings[0].curve
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(pair, own, tmp_path):
    with pytest.raises(PeelError, match=r"not finite at step 8 of 30; the checkpoint of step 5 is kept") as caught:
        tuned(pair, loss=own("later"), save_every=5, checkpoints=tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "--rate" in caught.value.hint
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in saved["weights"].values())


def test_a_full_disk_is_said_and_training_goes_on(pair, tmp_path, monkeypatch):
    from peelcli.errors import ExportError
    from peelcli.training import checkpoint

    write, calls = checkpoint.write, []

    def fills_up(folder, found):
        calls.append(found.step)
        if len(calls) == 2:
            raise ExportError("the disk is full: no room in here, nothing was written")
        write(folder, found)

    monkeypatch.setattr(checkpoint, "write", fills_up)
    notes = tuned(pair, save_every=10, checkpoints=tmp_path / "run").run.tunings[0].notes
    assert calls == [10, 20, 30]
    assert "no checkpoint at step 20, that of step 10 is kept: the disk is full: no room in here" in notes


def test_a_checkpoint_of_another_run_is_refused(pair, tmp_path):
    with pytest.raises(PeelError, match="interrupted"):
        tuned(pair, checkpoints=tmp_path / "run", progress=ends_at(1))
    said = refused(pair, checkpoints=tmp_path / "run", resume=True, batch=8)
    assert "--batch was 16 and is 8" in said
    said = refused(pair, images(120, seed=4), checkpoints=tmp_path / "run", resume=True)
    assert "the samples differ" in said
    said = refused(pair, validation=images(20, seed=5), checkpoints=tmp_path / "run", resume=True)
    assert "the samples differ" in said
    assert "a run that is not over" in refused(pair, checkpoints=tmp_path / "run")


# --- what can't be


def test_more_processes_than_samples_are_refused():
    pool = SimpleNamespace(fit=range(2))
    with pytest.raises(PeelError, match="3 processes share 2 samples"):
        tuning._order(pool, Training(steps=1), SimpleNamespace(count=3), seed=0)


def test_a_plan_of_another_original_is_refused(pair, tmp_path):
    pruned(pair[0], tmp_path / "slim.safetensors")
    other = network()
    nn.init.zeros_(other[-1].bias)
    assert "other weights" in refused((other, tmp_path / "slim.safetensors"))
    assert "another architecture" in refused((network(norm=False), tmp_path / "slim.safetensors"))


def test_an_original_with_other_outputs_is_refused(pair):
    torch.manual_seed(0)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES + 1)).eval()
    assert "64x5, and the slim model 64x4" in refused((other, pair[1]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("row", "a tensor of shape 64, not one number"),
        ("number", "returned float, not one number"),
        ("still", "does not depend on the slim model"),
        ("sums", "the data has no targets"),
        ("nosuch", "has no function nosuch"),
    ],
)
def test_a_loss_that_is_none_is_refused(pair, own, name, words):
    assert words in refused(pair, loss=own(name))


def test_a_loss_of_nan_ends_at_the_first_step(pair, own):
    with pytest.raises(PeelError, match="not finite at step 1 of 30; there is no checkpoint"):
        tuned(pair, loss=own("nan"))


REFUSED = {
    "no length": ({"steps": None}, "say how long to train"),
    "two lengths": ({"epochs": 2}, "one of them"),
    "labels that are not there": ({"distill": 0.5}, "no class numbers"),
    "layers without a plan": ({"match": "features"}, "the plan that says which channels were kept"),
    "parts of nothing": ({"batch": 2, "accumulate": 3}, "can't be shared"),
    "half precision on a CPU": ({"precision": "fp16", "device": "cpu"}, "needs a GPU"),
    "a flag without a folder": ({"resume": True}, "--resume needs a folder"),
    "a way that is none": ({"augment": "rotate"}, "rotate"),
}


@pytest.mark.parametrize("case", REFUSED, ids=[name.replace(" ", "-") for name in REFUSED])
def test_settings_that_do_not_go_together_are_refused(pair, case):
    settings, words = REFUSED[case]
    assert words in refused(pair, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_refused(pair):
    assert "no CUDA device" in refused(pair, device="cuda")


def test_without_anything_to_learn_from_it_is_refused(pair):
    with pytest.raises(PeelError, match="no original to learn from"):
        peel.finetune(pair[1], images(1), data=images(20), steps=2)


def test_rounds_without_training_are_refused():
    with pytest.raises(PeelError, match="--rounds 2 trains between the cuts"):
        peel.prune(network(), images(1), flops="50%", rounds=2)


@pytest.mark.parametrize("text", ["5 parsecs", "0epochs", "1.5steps", "-3"])
def test_a_length_that_is_none_is_refused(text):
    with pytest.raises(PeelError, match="no length of training") as caught:
        peel.prune(network(), images(1), flops="50%", data=images(20), finetune=text)
    assert math.isclose(caught.value.exit_code, 2)
