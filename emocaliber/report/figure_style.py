"""What all figures share: their colours, how one begins, its legend, and how it becomes PNG and PDF.

matplotlib is imported inside the functions, so that importing this module is quick; no display is needed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emocaliber.report.tables import OVERALL

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe & Ito, "Color Universal Design" (2008): told apart with every common kind of colour blindness. Every
# line also has a marker and a dash pattern of its own.
BLUE, VERMILION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
LINES = {
    "ID VSA": (BLUE, "o", "-"),
    "ID VER": (VERMILION, "s", "--"),
    "OOD VER": (GREEN, "^", "-."),
    OVERALL: (BLACK, "D", ":"),
}
"""Colour, marker and dashes of the line of a group."""

SUFFIXES = (".png", ".pdf")
_DOTS_PER_INCH = 150

# Without the name and version of the program and the time, so that the bytes depend on the numbers only.
_NO_METADATA = {"Creator": None, "Producer": None, "CreationDate": None}


@contextmanager
def figure_settings() -> Iterator[None]:
    """Draw with matplotlib's own defaults, whatever the user's matplotlibrc says, and fonts journals take."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType; Type 3 is refused by many publishers
        # A task's name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width_inch: float, height_inch: float, column_gap: float = 0.02) -> Figure:
    """An empty figure of its own, not one of pyplot's: no global state, no display, nothing to close.

    `column_gap`: between columns of axes, as a share of the width of one.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width_inch, height_inch), layout=ConstrainedLayoutEngine(wspace=column_gap))


def clean(axes: Axes) -> None:
    """Leave out the lines above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(
    figure: Figure, entries: tuple[Sequence[Artist], Sequence[str]], n_columns: int, **settings: Any
) -> None:
    """A legend under the figure, where it hides nothing; `entries`: the handles and their labels."""
    settings |= {"ncols": n_columns, "fontsize": 8, "frameon": False}
    figure.legend(*entries, loc="outside lower center", **settings)


def aligned(padded: str) -> str:
    """A number padded with spaces, so that it stands in a column: in this font a digit is two spaces wide."""
    number = padded.lstrip(" ")
    return 2 * (len(padded) - len(number)) * " " + number


def encoded(figure: Figure, suffixes: Sequence[str] = SUFFIXES) -> dict[str, bytes]:
    """The figure as file content per suffix, laid out once. A PDF takes longer than all the rest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # A ligature (the "fi" of "Confidence") would be a second font in a PDF, and not found by a search.
        if hasattr(text, "set_fontfeatures"):
            text.set_fontfeatures(["-liga"])
    figure.set_dpi(_DOTS_PER_INCH)
    png, pdf = io.BytesIO(), io.BytesIO()
    # The canvases themselves, as `savefig` draws everything twice. The PNG also lays the figure out.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(png, metadata={"Software": None})
    if ".pdf" in suffixes:
        figure.set_layout_engine("none")
        canvas = FigureCanvasPdf(figure)
        canvas.print_pdf(pdf, metadata=_NO_METADATA)
    contents = {".png": png.getvalue(), ".pdf": pdf.getvalue()}
    return {suffix: contents[suffix] for suffix in suffixes}
