"""What a failure says, and what was done before it."""

from __future__ import annotations

from peelcli.errors import PeelError, UntrustedPickle, UsageError


def test_what_came_before_stands_in_the_same_line():
    error = UsageError("the budget is no number", hint="try 1G")
    error.add("two groups were locked")
    assert error.message == str(error) == "the budget is no number; two groups were locked"
    assert error.hint == "try 1G"


def test_a_pickle_that_is_not_trusted_names_what_it_would_import():
    error = UntrustedPickle("model.pt", ["os.system", "net.Net"])
    assert error.message == "model.pt would import code on loading, nothing was executed: os.system, net.Net"
    assert error.imports == ("os.system", "net.Net")
    assert "--trust" in error.hint
    assert isinstance(error, PeelError)
