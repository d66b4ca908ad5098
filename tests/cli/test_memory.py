"""Want of memory is told as that, whoever noticed it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peelcli.cli import memory
from peelcli.errors import ExportError


def wrapped():
    try:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
    except RuntimeError as error:
        raise ExportError("the model can't be exported", hint="write .pt") from error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), ImportError("failed to map segment")])
def test_many_words_for_it(error):
    assert memory.is_wanting(error)


def test_an_error_that_came_from_it():
    with pytest.raises(ExportError) as caught:
        wrapped()
    assert memory.is_wanting(caught.value)


def test_other_errors():
    assert not memory.is_wanting(ValueError("no"))
    assert not memory.is_wanting(SystemError("no limit is set"))
    memory.check()


def test_a_limit_that_leaves_nothing_is_told_before_any_work():
    code = (
        "import resource; from peelcli.cli import memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**25, 2**25))\n"
        "try: memory.check()\n"
        "except Exception as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("`ulimit -v` leaves ")
    assert "ulimit -v unlimited" in done.stdout
