"""Pictures that matplotlib draws; it is loaded when one is drawn."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from peelcli.errors import ExportError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_STYLE = {
    "svg.hashsalt": "peel",  # else names inside differ from run to run
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a layer's name is a $
}


def require(kind: str, instead: str = "") -> None:
    """Refuse early where matplotlib is missing.

    Args:
        kind: of the picture, e.g. ".png".
        instead: another way out, for the hint.

    Raises:
        ExportError: with the command that installs it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ExportError(f"drawing {kind} needs matplotlib", hint=f"pip install 'peelcli[plot]'{instead}")


def draw(size: tuple[float, float], fill: Callable[[Figure], None], kind: str) -> bytes:
    """A picture's file; the same for the same content, byte for byte.

    Args:
        size: width and height in inches.
        fill: draws into the figure.
        kind: ".svg" or ".png".
    """
    require(kind)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no window, whatever the user's settings
    from matplotlib.figure import Figure

    metadata = {"Date": None} if kind == ".svg" else {"Software": None}
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font does not have is drawn as a box
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        fill(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=kind.removeprefix("."), dpi=_DPI, metadata=metadata)
    return stream.getvalue()
