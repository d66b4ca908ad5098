"""Files are whole or absent, and outputs that can't work are refused before any work."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peelcli import files
from peelcli.errors import ExportError, UsageError


def everything_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- staged -----------------------------------------------------------------------------------------------------------


def test_all_targets_appear_on_a_clean_exit_and_nothing_else(tmp_path):
    targets = [tmp_path / "a.onnx", tmp_path / "ü b.pt"]
    with files.staged(targets) as temporaries:
        for position, temporary in enumerate(temporaries):
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".peel-")
            assert temporary.suffix == targets[position].suffix
            temporary.write_text(str(position))
        assert not any(target.exists() for target in targets)
    assert everything_in(tmp_path) == {"a.onnx": "0", "ü b.pt": "1"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_folder_as_it_was(tmp_path, failure):
    (tmp_path / "a.onnx").write_text("old")

    def interrupted():
        with files.staged([tmp_path / "a.onnx", tmp_path / "b.pt"]) as (first, second):
            first.write_text("new")
            second.write_text("half")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert everything_in(tmp_path) == {"a.onnx": "old"}


def fail_at_rename(monkeypatch, number, failure):
    """Let the given rename fail; those before and after it work."""
    done = []
    real = Path.replace

    def replace(self, target):
        done.append(target)
        if len(done) == number:
            raise failure
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(
    ("failure", "seen"), [(PermissionError(errno.EACCES, "no"), ExportError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_when_the_last_rename_fails_the_first_is_taken_back(tmp_path, monkeypatch, failure, seen):
    (tmp_path / "a.onnx").write_text("old a")
    (tmp_path / "c.pt").write_text("old c")
    fail_at_rename(monkeypatch, 3, failure)

    def run():
        with files.staged([tmp_path / "a.onnx", tmp_path / "b.pt", tmp_path / "c.pt"]) as temporaries:
            for temporary in temporaries:
                temporary.write_text("new")

    with pytest.raises(seen):
        run()
    assert everything_in(tmp_path) == {"a.onnx": "old a", "c.pt": "old c"}


def test_several_existing_files_are_replaced_together_without_leftovers(tmp_path):
    targets = [tmp_path / "a.onnx", tmp_path / "b.pt"]
    for target in targets:
        target.write_text("old")
    with files.staged(targets) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert everything_in(tmp_path) == {"a.onnx": "new", "b.pt": "new"}


def test_backups_are_copies_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    fail_at_rename(monkeypatch, 2, PermissionError(errno.EACCES, "no"))
    (tmp_path / "a.onnx").write_text("old")

    def run():
        with files.staged([tmp_path / "a.onnx", tmp_path / "b.pt"]) as temporaries:
            for temporary in temporaries:
                temporary.write_text("new")

    with pytest.raises(ExportError):
        run()
    assert everything_in(tmp_path) == {"a.onnx": "old"}


def test_files_of_two_runs_are_not_mixed(tmp_path, monkeypatch):
    """Renames that take their time: without a lock the second run's come between the first run's."""
    replace, targets = Path.replace, [tmp_path / "slim.safetensors", tmp_path / "slim.plan.json"]

    def slowly(path, target):
        replace(path, target)
        time.sleep(0.02)

    def write(text):
        for _ in range(5):
            with files.staged(targets) as temporaries:
                for temporary in temporaries:
                    temporary.write_text(text)

    def contents():
        with files._alone_in({tmp_path}):
            return {target.read_text() for target in targets if target.exists()}

    monkeypatch.setattr(Path, "replace", slowly)
    with ThreadPoolExecutor(2) as runs:
        several = [runs.submit(write, text) for text in ("one", "two")]
        while not all(run.done() for run in several):
            assert len(contents()) <= 1
            time.sleep(0.005)
        assert [run.result() for run in several] == [None, None]
    assert len(contents()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slim.plan.json", "slim.safetensors"]


def test_where_folders_can_not_be_locked_files_are_written_all_the_same(tmp_path, monkeypatch):
    def refused(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with files.staged([tmp_path / "a.onnx", tmp_path / "b.onnx"]) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert (tmp_path / "a.onnx").read_text() == (tmp_path / "b.onnx").read_text() == "new"


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    target.chmod(0o640)
    files.write_text_atomically(target, "new")
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link_and_its_end_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    end = tmp_path / "store" / "real.json"
    end.write_text("old")
    (tmp_path / "link.json").symlink_to(end)
    files.write_text_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert end.read_text() == "new"


# --- writing ----------------------------------------------------------------------------------------------------------


def test_text_is_written_as_utf_8(tmp_path):
    files.write_text_atomically(tmp_path / "plan.json", "größe\n")
    assert (tmp_path / "plan.json").read_bytes() == "größe\n".encode()
    assert len(everything_in(tmp_path)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_clear_line():
    with pytest.raises(ExportError, match=r"^the disk is full: no room in /dev \(2.0 kB are needed\), nothing was"):
        files.write_bytes(Path("/dev/full"), b"x" * 2000)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "larger than allowed"),
        (errno.EACCES, "permission denied, nothing was written"),
        (errno.EROFS, "read-only file system, nothing was written"),
    ],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, number, words):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    target = tmp_path / "plan.json"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(ExportError, match=words) as caught:
        files.write_text_atomically(target, "new")
    assert str(tmp_path) in caught.value.message
    assert everything_in(tmp_path) == {"plan.json": "old"}


LIMITED = """
import resource, sys
from pathlib import Path
from peelcli import files
from peelcli.errors import ExportError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_text_atomically(Path(sys.argv[1]), "x" * 5000)
except ExportError as error:
    print(error.message)
"""


def test_a_real_limit_of_the_system_leaves_no_file(tmp_path, peel_environment):
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "plan.json")]
    done = subprocess.run(command, env=peel_environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"a file of 5.0 kB is larger than allowed in {tmp_path}, nothing was written\n", done.stderr
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from peelcli import files
with files.staged([Path(sys.argv[1])]) as (temporary,):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_no_file_under_the_final_name(tmp_path, peel_environment):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "plan.json")]
    assert subprocess.run(command, env=peel_environment, timeout=60).returncode == -9
    assert not (tmp_path / "plan.json").exists()


# --- check_targets ----------------------------------------------------------------------------------------------------


def test_good_targets_pass_and_leave_no_trace(tmp_path):
    (tmp_path / "ü folder").mkdir()
    names = ["a.onnx", "b.pt", "ü folder/c d.safetensors", "E.ONNX"]
    files.check_targets([tmp_path / name for name in names], [tmp_path / "model.pt"])
    files.check_targets([tmp_path / "plan.json"], (), files.PLAN_SUFFIXES)
    files.check_targets([], ())
    assert everything_in(tmp_path) == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["missing/slim.onnx"], "the folder of the output .*slim.onnx does not exist"),
        (["file/slim.onnx"], "is no folder"),
        (["folder.onnx"], "is a folder"),
        (["slim.pth"], "unknown suffix .pth"),
        (["slim"], "has no suffix"),
        (["plan.json"], "unknown suffix .json"),
        (["model.pt"], "the output .*model.pt is the input"),
        (["link.pt"], "the output .*link.pt is the input"),
        (["hard.pt"], "the output .*hard.pt is the input"),
        (["slim.onnx", "slim.onnx"], "slim.onnx would be written twice"),
        (["a/slim.onnx", "slim.onnx"], "slim.onnx is also .*slim.onnx"),
        (["loop.pt"], "can't be followed"),
        (["dangling.onnx"], "the folder of the output .*dangling.onnx does not exist"),
        (["with.safetensors"], "the output .*with.plan.json is a folder"),
    ],
)
def test_bad_targets_are_refused_with_a_reason_and_a_hint(tmp_path, names, message):
    (tmp_path / "model.pt").write_text("model")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "with.plan.json").mkdir()
    (tmp_path / "link.pt").symlink_to(tmp_path / "model.pt")
    (tmp_path / "hard.pt").hardlink_to(tmp_path / "model.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "dangling.onnx").symlink_to(tmp_path / "missing" / "slim.onnx")
    (tmp_path / "a").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        files.check_targets([tmp_path / name for name in names], [tmp_path / "model.pt"])
    assert "\n" not in caught.value.message


def test_a_folder_that_the_user_may_not_write_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UsageError, match=r"the folder of the output .* is read-only") as caught:
        files.check_targets([tmp_path / "slim.onnx"])
    assert "--out" in caught.value.hint


def test_an_existing_file_that_is_read_only_is_refused(tmp_path, monkeypatch):
    (tmp_path / "slim.onnx").write_text("mine")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == tmp_path)
    with pytest.raises(UsageError, match="exists and is read-only"):
        files.check_targets([tmp_path / "slim.onnx"])


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
def test_a_folder_that_only_looks_writable_is_refused():
    with pytest.raises(UsageError, match=r"slim.onnx"):  # root may write everywhere, says os.access
        files.check_targets([Path("/proc/slim.onnx")])


def test_what_was_written_is_known(tmp_path):
    """Who is interrupted afterwards can say so."""
    with pytest.raises(ValueError, match="made up"), files.staged([tmp_path / "no.pt"]):
        raise ValueError("made up")
    files.write_text_atomically(tmp_path / "yes.json", "{}\n")
    assert tmp_path / "yes.json" in files.written()
    assert tmp_path / "no.pt" not in files.written()


# --- small ones -------------------------------------------------------------------------------------------------------


def test_weights_lie_beside_their_program(tmp_path):
    assert files.weights_beside(tmp_path / "slim.py") == tmp_path / "slim.safetensors"


def test_checkpoints_of_one_round_or_several(tmp_path):
    assert files.checkpoints_in(tmp_path) == []
    for place in (tmp_path, tmp_path / "round-1", tmp_path / "round-2", tmp_path / "other"):
        place.mkdir(exist_ok=True)
        (place / files.CHECKPOINT).touch()
    found = [path.parent.relative_to(tmp_path).as_posix() for path in files.checkpoints_in(tmp_path)]
    assert sorted(found) == [".", "round-1", "round-2"]


@pytest.mark.parametrize(("old", "taken"), [("# Written by peel 0.1\n", True), ("", True), ("import os\n", False)])
def test_only_programs_of_our_own_are_written_over(tmp_path, old, taken):
    (tmp_path / "slim.py").write_text(old)
    if taken:
        files.check_targets([tmp_path / "slim.py"], (), {".py"})
    else:
        with pytest.raises(UsageError, match="won't replace it"):
            files.check_targets([tmp_path / "slim.py"], (), {".py"})


def test_a_program_that_can_not_be_read_is_not_written_over(tmp_path, monkeypatch):
    def unreadable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    (tmp_path / "slim.py").write_text("# Written by peel\n")
    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.raises(UsageError, match="won't replace it"):
        files.check_targets([tmp_path / "slim.py"], (), {".py"})


def test_a_part_of_a_staged_file_is_changed(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    files.overwrite(tmp_path / "a", 3, b"xyz")
    assert (tmp_path / "a").read_bytes() == b"012xyz6789"


def test_a_full_disk_is_told_where_a_part_is_changed(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"0123456789")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError):
        files.overwrite(tmp_path / "a", 3, b"xyz")
