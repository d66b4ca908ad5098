"""Points of a sweep: the plans that single runs make, done once, by whoever works on them."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest

from peelcli import pipeline, plans
from peelcli.config import Budget, Options
from peelcli.errors import CheckFailed, PeelError, UsageError
from peelcli.planning import Clock, prepare
from peelcli.report import curve
from peelcli.report import sweep as report
from peelcli.sweeps import run, workers
from peelcli.sweeps.proof import proven
from peelcli.sweeps.run import Ways
from peelcli.sweeps.store import Store
from peelcli.sweeps.work import Task
from tests.support import zoo

INPUT = ("1,3,8,8",)


def sweep(model, out, flops="75%,50%", **settings):
    ways = Ways(out, **{name: settings.pop(name) for name in ("jobs", "ray", "bench") if name in settings})
    return run.sweep(str(model), ways=ways, flops=flops, input=INPUT, **settings)


def test_each_point_has_the_plan_that_a_run_of_its_own_makes(model, tmp_path):
    found = sweep(model, tmp_path / "out", data=str(tmp_path / "samples.pt"))
    chosen = json.loads((tmp_path / "out" / "sweep.choice.json").read_text("utf-8"))
    assert sum(each.chosen for each in found.candidates) <= 1
    for point in found.points:
        data = str(tmp_path / "samples.pt")
        single = pipeline.prune(str(model), flops=point.budget, input=INPUT, data=data, **chosen).run
        assert (tmp_path / "out" / point.plan).read_text("utf-8") == plans.to_json(single.plan)
        assert point.after == single.after
        assert point.fidelity == single.fidelity
    assert found.proof.ok


def test_a_model_among_the_points_is_not_written_over(tmp_path):
    (tmp_path / "flops-50pct.onnx").write_text("original")
    with pytest.raises(UsageError, match=r"the output .*flops-50pct.onnx is the input"):
        sweep(tmp_path / "flops-50pct.onnx", tmp_path, bench=True)
    assert [path.name for path in tmp_path.iterdir()] == ["flops-50pct.onnx"]


def test_points_that_are_there_are_not_made_again(model, tmp_path):
    out = tmp_path / "out"
    sweep(model, out, "75%,50%")
    (out / "flops-50pct.plan.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("flops-75*")}
    again = sweep(model, out, "75%,50%,40%")
    assert again.found == 1
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert (out / "flops-50pct.plan.json").is_file()
    complete = sweep(model, out, "75%,50%,40%")
    assert (complete.found, complete.points) == (3, again.points)
    assert complete.before == again.before


def test_points_that_are_added_later_are_allocated_in_the_same_way(model, tmp_path):
    data, out = str(tmp_path / "samples.pt"), tmp_path / "out"
    sweep(model, out, "75%,50%", data=data)
    (out / "sweep.choice.json").write_text('{"allocate": "greedy", "tau": 1.0}')
    sweep(model, out, "75%,50%,30%", data=data)
    assert dict(plans.read(out / "flops-30pct.plan.json").settings)["allocate"] == "greedy"


def test_a_torn_point_is_made_again(model, tmp_path):
    out = tmp_path / "out"
    first = sweep(model, out, "50%")
    for torn in ("", "{", '{"budget": 1}', "[]"):
        (out / "flops-50pct.point.json").write_text(torn)
        again = sweep(model, out, "50%")
        assert again.found == 0
        assert again.points[0].after == first.points[0].after


def test_a_folder_of_another_sweep_is_refused(model, tmp_path):
    sweep(model, tmp_path / "out", "50%")
    with pytest.raises(UsageError, match="holds a sweep of other settings: seed"):
        sweep(model, tmp_path / "out", "50%", seed=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be used"):
        sweep(model, tmp_path / "file", "50%")


def test_a_budget_out_of_reach_leaves_the_others(model, tmp_path):
    found = sweep(model, tmp_path / "out", "50%,0.1%")
    assert [bool(point.failed) for point in found.points] == [False, True]
    assert "the least MACs" in found.points[1].failed
    assert report.document(found)["points"][1]["after"] is None


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "one kind of budget"),
        ({"flops": "50%", "params": "50%"}, "one kind of budget"),
        ({"flops": "50%,,20%"}, "is not a number"),
        ({"flops": "50%,-1"}, "--flops -1"),
    ],
)
def test_budgets_that_make_no_sense(budgets, message, model, tmp_path):
    with pytest.raises(UsageError, match=message):
        run.sweep(str(model), ways=Ways(tmp_path / "out"), **budgets)
    assert not (tmp_path / "out").exists()


def test_equal_budgets_make_one_point(model, tmp_path):
    assert [point.budget for point in sweep(model, tmp_path / "out", ["50%", "50.0%"]).points] == ["50%"]


def test_a_group_that_breaks_the_proof_is_locked_for_all_points(monkeypatch):
    from peelcli.graph import trace

    honest = trace.trace
    monkeypatch.setattr(trace, "trace", lambda *args: honest(*args[:3], "depgraph"))
    subject, options = zoo.subject("fixed_view"), Options(align=1, allocate="uniform")
    prepared = prepare(subject, options, Clock(None))
    budgets = [Budget(flops="70%"), Budget(flops="50%")]
    locked, check = proven(subject, prepared, budgets, options, Clock(None))
    assert check.ok
    assert sum(g.locked is not None for g in locked.graph.groups) > sum(
        g.locked is not None for g in prepared.graph.groups
    )


def test_processes_make_the_same_points(model, tmp_path):
    alone, together = sweep(model, tmp_path / "a"), sweep(model, tmp_path / "b", jobs=2)
    assert [p.after for p in together.points] == [p.after for p in alone.points]
    for name in ("flops-75pct.plan.json", "flops-50pct.plan.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_points_are_timed_beside_the_original_and_drawn(model, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "BENCH_SECONDS", 0.1)
    found = sweep(model, tmp_path / "out", "50%", bench=True)
    (bench,) = found.bench
    assert [timed.ratio is None for timed in bench.files] == [True, False]
    document = json.loads(json.dumps(report.document(found)))
    assert document["points"][0]["latency"]["rounds"] >= 9
    assert curve.picture(found, ".svg") == curve.picture(found, ".svg")
    assert curve.picture(found, ".PNG").startswith(b"\x89PNG")
    assert sweep(model, tmp_path / "out", "50%").found == 1


def test_a_worker_that_can_not_load_the_model_says_why(model, tmp_path):
    subject = pipeline.load(str(model), input=INPUT)
    prepared = prepare(subject, Options(), Clock(None))
    task = Task(str(tmp_path / "gone.pt"), None, {}, Options(), prepared, export=False)
    with pytest.raises(PeelError, match=r"gone\.pt"):
        list(workers.in_processes(task, [(Budget(flops="50%"), "a")], 1))


def test_nothing_to_draw(model, tmp_path):
    with pytest.raises(UsageError, match="no curve to draw"):
        curve.picture(sweep(model, tmp_path / "out", "50%"), ".svg")


def test_a_killed_run_goes_on_where_it_stopped(model, tmp_path, peel_environment):
    budgets = ",".join(f"{share}%" for share in range(95, 55, -1))
    command = [sys.executable, "-m", "peelcli", "sweep", "net.pt", "--input", "1,3,8,8", "--flops", budgets]
    running = subprocess.Popen(command, cwd=tmp_path, env=peel_environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "sweep").glob("*.point.json"))) < 2 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = len(list((tmp_path / "sweep").glob("*.point.json")))
    assert 2 <= done < 40
    found = run.sweep(str(tmp_path / "net.pt"), ways=Ways(tmp_path / "sweep"), flops=budgets, input=INPUT)
    assert found.found == done
    assert not any(point.failed for point in found.points)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="needs the package ray") as refused:
        list(workers.through_ray(None, [], "auto"))
    assert "peelcli[sweep]" in refused.value.hint


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra sweep is not installed")
def test_ray_makes_the_same_points(model, tmp_path):
    alone, through = sweep(model, tmp_path / "a"), sweep(model, tmp_path / "b", ray="local")
    assert [p.after for p in through.points] == [p.after for p in alone.points]
    with pytest.raises(UsageError, match="no Ray cluster at auto"):
        sweep(model, tmp_path / "c", ray="auto")


def test_a_failed_proof_writes_no_point(model, tmp_path, monkeypatch):
    from peelcli.records import Check

    broken = Check("masked_equivalence", False, 1.0, 1e-9)
    monkeypatch.setattr(run, "proven", lambda subject, prepared, *_: (prepared, broken))
    with pytest.raises(CheckFailed, match="masked_equivalence does not hold"):
        sweep(model, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.point.json"))


@pytest.mark.parametrize("content", ["[1]", "3", "[" * 100_000, '{"a":' * 100_000])
def test_a_folder_with_a_damaged_key_is_refused(content, tmp_path):
    (tmp_path / "sweep.key.json").write_text(content)
    with pytest.raises(UsageError, match="holds a sweep of something else"):
        Store(tmp_path, {"weights": "abc"})


def test_damaged_points_and_choices_are_none(tmp_path):
    store = Store(tmp_path, {"weights": "abc"})
    for name in ("a.point.json", "sweep.choice.json"):
        (tmp_path / name).write_text("[" * 100_000)
    assert store.find("a", with_onnx=False) is None
    assert store.choice() == {}
