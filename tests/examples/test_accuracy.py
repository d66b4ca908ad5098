"""The benchmark "accuracy without training": what its figures stand on, without its packages and its hours."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"
TITLES = {"digits": ("Digits", ("top1",))}


@pytest.fixture(autouse=True)
def _scripts_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.startswith(("accuracy", "common"))]:
        del sys.modules[name]


def row(method="peel", share=0.5, seed=0, top1=0.9, left=None, **more):
    return {
        "task": "digits",
        "seed": seed,
        "method": method,
        "share": share,
        "figures": {"top1": top1},
        "left": share if left is None else left,
        "macs": 2_000_000,
        "seconds": 1.0,
        "peak_mib": 300,
        "versions": {"torch": "2"},
        **more,
    }


def without_figures(**fields):
    return {key: value for key, value in row(**fields).items() if key not in ("figures", "left", "seconds")}


# --- no sample is in two sets


def test_digits_are_split_evenly_and_without_overlap():
    from accuracy_tasks.digits import split

    labels = torch.arange(10).repeat_interleave(500)
    sets = split(labels, 3, (1000, 512))
    assert [len(positions) for positions in sets] == [1000, 512, 3488]
    assert sorted(torch.cat(sets).tolist()) == list(range(5000))
    for positions in sets:
        counts = labels[positions].bincount(minlength=10)
        assert counts.max() - counts.min() <= 1


def test_another_seed_splits_otherwise_and_the_same_one_the_same_way():
    from accuracy_tasks.digits import split

    labels = torch.arange(10).repeat(50)
    assert torch.equal(split(labels, 0, (100,))[0], split(labels, 0, (100,))[0])
    assert not torch.equal(split(labels, 0, (100,))[0], split(labels, 1, (100,))[0])


@pytest.mark.parametrize("seed", range(5))
def test_photos_are_held_out_whole(seed):
    pytest.importorskip("skimage")
    from accuracy_tasks.photos import photos, split

    ours, held_out = split(seed)
    assert not set(ours) & set(held_out)
    assert set(ours) | set(held_out) == set(photos())
    assert len(held_out) == -(-len(photos()) // 4)


def test_tones_to_calibrate_on_are_not_those_to_judge_by():
    from accuracy_tasks import pitch

    calibration, test, truth = pitch.data(0)
    assert calibration.shape == (512, 1024)
    assert test.shape == (1000, 1024)
    assert not (calibration[:, None, :8] == test[None, :, :8]).all(2).any()
    assert test.mean(1).abs().max() < 1e-5
    assert truth.min() >= pitch.LOWEST
    assert truth.max() <= pitch.HIGHEST


# --- figures


def test_shifts_move_an_image_whole():
    from accuracy_tasks.digits import shifted

    torch.manual_seed(0)
    images = torch.zeros(64, 1, 28, 28)
    images[:, 0, 10, 20] = 9.0
    moved = shifted(images, 2)
    rows, columns = moved[:, 0].flatten(1).argmax(1) // 28, moved[:, 0].flatten(1).argmax(1) % 28
    assert moved.shape == images.shape
    assert set((rows - 10).tolist()) == set((columns - 20).tolist()) == {-2, -1, 0, 1, 2}


def test_pitch_is_the_mean_of_the_bins_around_the_largest():
    from accuracy_tasks import pitch

    outputs = torch.zeros(1, 360)
    outputs[0, [100, 101, 300]] = torch.tensor([0.6, 0.2, 0.5])  # bin 300 is too far away to count
    assert pitch.cents(outputs).item() == pytest.approx(pitch.FIRST_CENTS + 20 * 100.25)


def test_a_network_agrees_with_itself_and_diverges_from_another():
    from accuracy_tasks.photos import judge

    dense = torch.tensor([[4.0, 3, 2, 1, 0, -1], [0.0, 1, 2, 3, 4, 5]])
    assert judge(dense, dense, None) == {"agreement": 1.0, "top5": 1.0, "kl": 0.0}
    found = judge(torch.tensor([[4.0, 3, 2, 1, 0, -1], [5.0, 4, 3, 2, 1, 0]]), dense, None)
    assert (found["agreement"], found["top5"]) == (0.5, 0.5)
    assert found["kl"] > 0


def test_norms_get_the_statistics_of_all_samples_and_their_momentum_back():
    from accuracy_peers.base import reestimate_norms

    module = nn.Sequential(nn.BatchNorm1d(2, momentum=0.3)).eval()
    samples = torch.randn(128, 2) * 3 + 5
    reestimate_norms(module, samples)
    halves = torch.stack([half.var(0) for half in samples.split(64)])
    torch.testing.assert_close(module[0].running_mean, samples.mean(0))
    torch.testing.assert_close(module[0].running_var, halves.mean(0))
    assert module[0].momentum == 0.3
    assert not module[0].training


# --- the table


def test_a_cell_is_the_median_with_least_and_largest():
    import accuracy_table

    rows = [row("dense", 1.0, seed, 0.99) for seed in range(3)]
    rows += [row(seed=seed, top1=top1) for seed, top1 in enumerate((0.9, 0.5, 0.8))]
    text = accuracy_table.section(rows, TITLES)
    assert "| peel   | 99.0 (99.0 to 99.0) | 80.0 (50.0 to 90.0) |" in text
    assert "2.0 M multiply-adds" in text


def test_what_failed_is_blank_what_is_out_of_reach_says_so_and_what_is_over_is_marked():
    import accuracy_table

    rows = [
        row("dense", 1.0),
        row("a", 0.5, left=0.51),
        without_figures(method="a", share=0.3, out_of_reach="no"),
        without_figures(method="b", share=0.5, error="broke"),
        row("b", 0.3),
    ]
    lines = accuracy_table.section(rows, TITLES).splitlines()
    assert "| a      | 90.0     | 90.0 **over** | *no* |" in lines
    assert "| b      | 90.0     | -             | 90.0 |" in lines


def test_an_allocation_is_set_against_uniform_widths_of_its_own_score_and_repair():
    import accuracy_table

    ours, control = "peel bn/peel/auto", "peel bn/uniform/auto"
    rows = [row("dense", 1.0), row("peel bn/peel/none", 0.5), row("peel l2/uniform/none", 0.5)]
    rows += [row(ours, 0.5, seed, top1) for seed, top1 in enumerate((0.90, 0.92, 0.99))]
    rows += [row(control, 0.5, seed, top1) for seed, top1 in enumerate((0.88, 0.89, 0.895))]
    rows += [row(ours, 0.3, seed, top1) for seed, top1 in enumerate((0.5, 0.6))]  # a seed that ours lacks says nothing
    rows += [row(control, 0.3, seed, top1) for seed, top1 in enumerate((0.5, 0.7, 0.1))]
    rows += [row(ours, 0.1), row(control, 0.1)]
    text = accuracy_table.section(rows, TITLES)
    assert f"| {ours} | **+3.0** | -5.0 | +0.0 | 1, 1, 1             |" in text
    assert text.count("### Against the uniform control") == 1
    assert "Against the uniform control" not in accuracy_table.section(rows[:3], TITLES)


def test_scores_that_are_not_shown_by_themselves_stand_in_a_grid():
    import accuracy_table

    rows = [row("dense", 1.0), row("peel bn/peel/auto", 0.3, top1=0.75), row("torch-pruning l2/local", 0.3)]
    assert "Every score" not in accuracy_table.section(rows, TITLES)
    rows += [row("peel fpgm/greedy/none", 0.3, seed, top1) for seed, top1 in enumerate((0.1, 0.2, 0.6))]
    text = accuracy_table.section(rows, TITLES)
    assert "| peel fpgm/greedy/none" not in text
    assert "| score | greedy       | peel         |" in text
    assert "| bn    | - / - / -    | - / - / 75.0 |" in text
    assert "| fpgm  | 20.0 / - / - | - / - / -    |" in text


def test_the_section_replaces_what_was_between_its_markers_and_nothing_else(tmp_path):
    import accuracy_table

    page = tmp_path / "results.md"
    page.write_text("# Mine\n\nbefore\n")
    accuracy_table.write(page, [row("dense", 1.0), row(top1=0.25)], TITLES)
    page.write_text(page.read_text() + "\nafter\n")
    accuracy_table.write(page, [row("dense", 1.0), row(top1=0.75)], TITLES)
    text = page.read_text()
    assert text.startswith("# Mine\n\nbefore\n")
    assert text.endswith("\nafter\n")
    assert "75.0" in text
    assert "25.0" not in text
    assert text.count("<!-- accuracy: begin -->") == 1


# --- going on where it stopped


@pytest.fixture
def accuracy():
    pytest.importorskip("torch_pruning")
    import accuracy

    return accuracy


def test_rows_that_are_there_are_skipped_and_failed_ones_tried_again(accuracy, tmp_path, monkeypatch):
    results, measured = tmp_path / "rows.jsonl", []

    def measure(key, grid, limit):
        measured.append((key.method, key.share))
        return row(**key._asdict()) if key.share > 0.3 else without_figures(**key._asdict(), error="broke")

    monkeypatch.setattr(accuracy, "in_own_process", measure)
    options = argparse.Namespace(again=False, grid="small", limit=1.0)
    wanted = list(accuracy.keys(["digits"], 1, ["a"], (0.5, 0.3)))
    accuracy.run(iter(wanted), results, options)
    assert measured == [("dense", 1.0), ("a", 0.5), ("a", 0.3)]
    accuracy.run(iter(wanted), results, options)
    assert measured[3:] == [("a", 0.3)]
    assert len([json.loads(line) for line in results.read_text().splitlines()]) == 4
    assert set(accuracy.read(results)) == set(wanted)


def test_a_method_that_fails_leaves_a_row_that_is_not_finished(accuracy, monkeypatch):
    def fail(*_):
        raise ValueError("no such score")

    monkeypatch.setattr(accuracy, "_judged", fail)
    found = accuracy.measure(accuracy.Key("digits-resnet", 0, "peel", 0.5), "small")
    assert found["error"] == "ValueError: no such score"
    assert not accuracy.finished(found)


def test_out_of_reach_is_an_answer(accuracy, monkeypatch):
    def refuse(*_):
        raise accuracy.OutOfReach("the least is 20 %")

    monkeypatch.setattr(accuracy, "_judged", refuse)
    found = accuracy.measure(accuracy.Key("digits-resnet", 0, "peel", 0.1), "small")
    assert found["out_of_reach"] == "the least is 20 %"
    assert accuracy.finished(found)
