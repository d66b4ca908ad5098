"""A forward pass that stops at every product, so that two of them can go side by side."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from peelcli.products import Product, Run, Seen, Watch


class _Ended(BaseException):
    """Thrown into a pass that nobody needs any longer."""


class Walk:
    """One forward pass in a thread of its own, without gradients; it runs only while `advance` waits for it.

    All walks have to be made and used inside one `products.python_functions_open()`, and be closed inside it:

        with python_functions_open(), Walk(original, inputs) as a, Walk(slim, inputs) as b: ...

    Of the modes that torch keeps for each thread the pass has inference mode as it was where the walk was made, but no
    autocast and no default device. Default dtype and random numbers are the process's: the passes share them.

    Args:
        module: what is called.
        inputs: its arguments.
        others: told of every call in the pass's thread, of a product as a call of `Product` without arguments.

    Attributes:
        product: the one where it stands, before it is computed; None before the start and at the end.
        output: of the whole forward, once it has ended.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...], others: Seen | None = None) -> None:
        self.product: Product | None = None
        self.output: Any = None
        self._inference = torch.is_inference_mode_enabled()
        self._compute: Run | None = None
        self._error: BaseException | None = None
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._ended = False  # by itself
        self._stopped = False  # by close
        self._others = others
        self._thread = threading.Thread(target=self._run, args=(module, inputs), daemon=True)

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self) -> Product | None:
        """Go on to the next product; None at the end and once closed. What the forward raises is raised here."""
        if not self._ended and not self._stopped:
            if self._thread.ident is None:
                self._thread.start()
            else:
                self._mine.release()
            self._theirs.acquire()
        if self._error is not None:
            raise self._error
        return self.product

    def compute(self) -> torch.Tensor:
        """The output of the product where it stands, with its weight as it is now; the pass goes on with it."""
        assert self._compute is not None
        with torch.inference_mode(self._inference), torch.no_grad():
            out = self._compute()
        self._compute = lambda: out
        return out

    def close(self) -> None:
        """Leave the pass where it stands; its thread is gone afterwards."""
        self._stopped = True
        if self._thread.is_alive():
            self._mine.release()
            self._thread.join()

    def _run(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        try:
            with torch.inference_mode(self._inference), torch.no_grad(), Watch(module, self._stop, self._others):
                self.output = module(*inputs)
        except _Ended:
            pass
        except BaseException as error:
            self._error = error
        self.product = self._compute = None
        self._ended = True
        self._theirs.release()

    def _stop(self, product: Product, run: Run) -> torch.Tensor:
        if self._stopped:  # closed while it ran, or it caught what ended it
            raise _Ended
        self.product, self._compute = product, run
        self._theirs.release()
        self._mine.acquire()
        if self._stopped:
            raise _Ended
        compute = self._compute
        self.product = self._compute = None
        out = compute()
        if self._others is not None:
            self._others(Product, (), {}, out)
        return out
