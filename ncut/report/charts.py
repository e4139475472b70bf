"""Charts as HTML and SVG that stretch to the available width, without JavaScript.

Shapes are drawn in an SVG whose view box is stretched, text is HTML beside it, so that text keeps
its size on phones and on paper. Colours come from the style sheet or from arguments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

SIDE = 1000


def attributes(**values: object) -> str:
    """Attributes of a tag, escaped; attributes that are None are left out.

    An underscore becomes a hyphen, one at the end is dropped.
    """
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for name, value in values.items()
        if value is not None
    )


def tag(name: str, content: str = "", /, **values: object) -> str:
    """A tag around markup."""
    return f"<{name}{attributes(**values)}>{content}</{name}>"


def percent(share: float) -> str:
    """A share of a length, for styles."""
    return f"{100 * share:.2f}%"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, at most `most` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number, with as many digits as neighbouring ticks need."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 3
    return f"{value:,.{min(digits, 6)}f}".replace("-", "\N{MINUS SIGN}")


def stretched(shapes: str) -> str:
    """SVG shapes in a square of SIDE units, stretched to fill their container."""
    return tag(
        "svg",
        shapes,
        viewBox=f"0 0 {SIDE} {SIDE}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


@dataclass
class Plane:
    """Two linear axes, and the shapes between them.

    Attributes
    ----------
    x, y : (float, float)
        The ends of the axes.
    x_title, y_title : str
    height : int, pixels
    whole : bool
        Whether x has ticks at whole numbers only.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_title: str
    y_title: str
    height: int = 260
    whole: bool = False
    shapes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str, str]] = field(default_factory=list)

    def bar(self, x0: float, x1: float, y0: float, y1: float, **values: object) -> None:
        """A rectangle."""
        left, right = self._across(x0), self._across(x1)
        top, bottom = sorted((self._down(y0), self._down(y1)))
        self.shapes.append(
            tag(
                "rect",
                x=_n(left),
                y=_n(top),
                width=_n(right - left),
                height=_n(bottom - top),
                **values,
            )
        )

    def line(self, xs: Iterable[float], ys: Iterable[float], **values: object) -> None:
        """A broken line."""
        points = " L".join(
            f"{_n(self._across(x))} {_n(self._down(y))}" for x, y in zip(xs, ys, strict=True)
        )
        self.shapes.append(tag("path", d=f"M{points}", **_stroke(values, "line")))

    def area(
        self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], **values: object
    ) -> None:
        """The area between two broken lines."""
        ends = [*zip(xs, high, strict=True), *zip(xs[::-1], low[::-1], strict=True)]
        points = " L".join(f"{_n(self._across(x))} {_n(self._down(y))}" for x, y in ends)
        self.shapes.append(tag("path", d=f"M{points}Z", **values))

    def dots(
        self,
        xs: Iterable[float],
        ys: Iterable[float],
        tips: Iterable[str],
        **values: object,
    ) -> None:
        """A dot with a text for each point; dots stay round at any width."""
        for x, y, tip in zip(xs, ys, tips, strict=True):
            where = f"M{_n(self._across(x))} {_n(self._down(y))}h0"
            self.shapes.append(tag("path", d=where, data_tip=tip, **_stroke(values, "dot")))

    def vertical(self, x: float, **values: object) -> None:
        """A line across the whole height."""
        self.line((x, x), self.y, **values)

    def horizontal(self, y: float, **values: object) -> None:
        """A line across the whole width."""
        self.line(self.x, (y, y), **values)

    def note(self, x: float, text: str, *, css: str = "", left: bool | None = None) -> None:
        """A text at the top, beside a position, on the side with more room."""
        share = self._across(x) / SIDE
        on_left = share > 0.5 if left is None else left
        place = f"right:{percent(1 - share)}" if on_left else f"left:{percent(share)}"
        self.texts.append(
            tag("span", escape(text), class_=f"note-in {css}".strip(), style=f"{place};top:0")
        )

    def markup(self) -> str:
        """The chart."""
        xs = self._ticks(self.x, self.whole)
        ys = self._ticks(self.y, False)
        grid = "".join(
            tag(
                "path",
                d=f"M0 {_n(self._down(y))}H{SIDE}",
                class_="grid",
                vector_effect="non-scaling-stroke",
            )
            for y, _ in ys
        )
        labels = [
            tag("span", text, class_="yt", style=f"top:{percent(self._down(y) / SIDE)}")
            for y, text in ys
        ] + [
            tag("span", text, class_="xt", style=f"left:{percent(self._across(x) / SIDE)}")
            for x, text in xs
        ]
        area = tag(
            "div",
            stretched(grid + "".join(self.shapes)) + "".join([*labels, *self.texts]),
            class_="area",
            style=f"height:{self.height}px",
        )
        legend = "".join(
            tag("span", tag("i", "", class_=css or None, style=style or None) + escape(name))
            for name, css, style in self.legend
        )
        return tag(
            "div",
            tag("span", escape(self.y_title), class_="ylabel")
            + area
            + tag("span", escape(self.x_title), class_="xlabel")
            + (tag("div", legend, class_="legend") if legend else ""),
            class_="plane",
        )

    def _ticks(self, ends: tuple[float, float], whole: bool) -> list[tuple[float, str]]:
        found = ticks(*ends)
        if whole:
            found = sorted({float(round(value)) for value in found if ends[0] <= round(value)})
            found = [value for value in found if value <= ends[1]]
        step = min((b - a for a, b in itertools.pairwise(found)), default=0.0)
        return [(value, tick_text(value, step)) for value in found]

    def _across(self, x: float) -> float:
        low, high = self.x
        return SIDE * (x - low) / (high - low)

    def _down(self, y: float) -> float:
        low, high = self.y
        return SIDE * (1 - (y - low) / (high - low))


def around(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The ends of an axis that holds these values, with a margin."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = share * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _stroke(values: dict[str, object], css: str) -> dict[str, object]:
    more = values.get("class_", "")
    return {
        **values,
        "class_": f"{css} {more}".strip(),
        "vector_effect": "non-scaling-stroke",
    }


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
