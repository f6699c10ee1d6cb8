"""Charts as inline SVG that follows the page: text and colours are CSS, light, dark or printed.

matplotlib draws with stand-in colours that are exchanged for CSS variables afterwards, so one
drawing serves every colour scheme. No global state of matplotlib is touched.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from certus.report.data import Line, Row, number
from certus.report.style import COLOURS, Look
from certus.report.words import norm as norm_name

VARIABLES = ("--ink", "--grid", "--paper", "--attack", *(f"--c{i + 1}" for i in range(COLOURS)))
STANDINS = {name: f"#0e{i:02x}f{i % 10}" for i, name in enumerate(VARIABLES)}
INK, GRID, PAPER = STANDINS["--ink"], STANDINS["--grid"], STANDINS["--paper"]
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "certus", "path.simplify": True}
PANEL = (4.1, 2.9)
FRAME = (0.19, 0.17, 0.78, 0.8)
MARKED = 24


def svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an inline <svg>, ids prefixed by `name`, described by `label` for screen readers."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{name}-', text).replace('href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-")
    for variable, standin in STANDINS.items():
        text = text.replace(standin, f"var({variable})")
    box = re.search(r'viewBox="[^"]+"', text)
    start = (
        f'<svg class="chart" {box.group() if box else ""} role="img" aria-label="{escape(label)}">'
    )
    return Markup(start + text[text.index(">") + 1 :])


def panel(
    lines: Sequence[Line],
    looks: Mapping[str, Look],
    name: str,
    clean: float = math.nan,
    limit: float | None = None,
    axis: str = "eps",
) -> Markup:
    """Accuracy against eps for one model in one norm: every method, its band, attacks, clean accuracy.

    Between two evaluated eps a certificate counts from the right (balls are nested) and an attack
    from the left, so every step drawn is a true bound of its inputs. clean in [0, 1] is drawn as a line.
    limit is the right end of the eps axis, shared by panels that are to be compared, axis its name.
    """
    figure = Figure(figsize=PANEL)
    axes = figure.add_axes(FRAME)
    top = limit or max((line.eps[-1] for line in lines), default=1.0) or 1.0
    if math.isfinite(clean):
        axes.axhline(100 * clean, color=INK, lw=0.9, dashes=(1, 3), zorder=1)
    for line in lines:
        _draw(axes, line, looks[_key(line)])
    axes.set_xlim(0, top * 1.03)
    axes.set_ylim(-2, 102)
    axes.set_xlabel(f"{axis} ({norm_name(lines[0].norm) if lines else ''})")
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}%"))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    _plain(axes)
    names = ", ".join(dict.fromkeys(line.method for line in lines))
    return svg(figure, name, f"Accuracy against {axis}: {names}")


def overview(rows: Sequence[Row], looks: Mapping[str, Look], name: str) -> Markup:
    """Summary rows as dots with 95% intervals, grouped by model, beside attack and clean accuracy.

    All marks of a line are about the same inputs, whose number is at its end: an attack on others of them
    is not drawn.
    """
    slots: list[tuple[str, Row | None]] = []
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        slots.append((model, None))
        slots += [(str(row["method"]), row) for row in rows if str(row["model"]) == model]
    figure = Figure(figsize=(4.9, 0.75 + 0.27 * len(slots)), layout="constrained")
    axes = figure.add_subplot()
    for y, (text, row) in enumerate(slots):
        if row is None:
            axes.text(
                0, y, short(text, 40), va="center", weight="bold", parse_math=False, color=INK
            )
        else:
            axes.axhline(y, color=GRID, lw=0.7, zorder=0)
            _dot(axes, y, row, looks[text])
    axes.set_ylim(len(slots) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}%"))
    _plain(axes)
    axes.grid(visible=False)
    marks = [(y, short(text, 18)) for y, (text, row) in enumerate(slots) if row is not None]
    axes.set_yticks([y for y, _ in marks], [text for _, text in marks])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_color(INK)
    axes.tick_params(axis="y", length=0)
    return svg(figure, name, "Certified accuracy of every method and model")


def key(look: Look, name: str) -> Markup:
    """A sample of a look for the legend."""
    figure = Figure(figsize=(0.5, 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0, 1, 2], [0, 0, 0], **_stroke(look), markevery=[1])
    axes.set_xlim(0, 2)
    return Markup(svg(figure, name, "").replace('role="img" aria-label=""', 'aria-hidden="true"'))


def short(text: str, size: int) -> str:
    """`text`, cut in the middle where it is longer than `size`."""
    half = (size - 1) // 2
    return text if len(text) <= size else f"{text[:half]}…{text[-half:]}"


def _key(line: Line) -> str:
    return f"attack {line.method}" if line.kind == "attack" else line.method


def _stroke(look: Look) -> dict[str, Any]:
    colour = STANDINS[look.colour]
    return {
        "color": colour,
        "dashes": look.dashes or (None, None),
        "marker": look.marker,
        "markersize": 5.5,
        "markerfacecolor": PAPER if look.hollow else colour,
        "markeredgecolor": colour,
        "lw": 1.2 if look.hollow else 1.9,
    }


def _draw(axes: Axes, line: Line, look: Look) -> None:
    eps, low, high = [list(line.eps), list(line.low), list(line.high)]
    value = list(line.accuracy)
    first = line.start if line.kind == "attack" else value[0]
    if eps[0] > 0 and math.isfinite(first):
        eps, value = [0.0, *eps], [first, *value]
        low = [low[0] if line.kind == "certified" else first, *low]
        high = [high[0] if line.kind == "certified" else first, *high]
    step: Literal["pre", "post"] = "post" if line.kind == "attack" else "pre"
    marks = [x in line.eps for x in eps]
    every = [i for i, mark in enumerate(marks) if mark]
    if len(every) > MARKED or line.dense:
        every = every[:: max(1, len(every) // 8)]
    axes.plot(
        eps,
        [100 * y for y in value],
        drawstyle=f"steps-{step}",
        markevery=every,
        zorder=3,
        **_stroke(look),
    )
    if line.kind == "certified":
        axes.fill_between(
            eps,
            [100 * y for y in low],
            [100 * y for y in high],
            step=step,
            color=STANDINS[look.colour],
            alpha=0.13,
            lw=0,
            zorder=2,
        )


def _dot(axes: Axes, y: int, row: Row, look: Look) -> None:
    value, low, high = (100 * number(row.get(k)) for k in ("certified", "low", "high"))
    attack, clean = (100 * number(row.get(k)) for k in ("attack", "clean"))
    axes.text(
        *(1.01, y, str(row["n"])), transform=axes.get_yaxis_transform(), va="center", color=INK
    )
    if row["attack_n"] != row["n"]:
        attack = math.nan
    stroke = {**_stroke(look), "lw": 0, "markersize": 6.5}
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=stroke["color"], lw=2, solid_capstyle="butt")
    if math.isfinite(clean):
        axes.plot([clean], [y], marker="|", color=INK, markersize=11, mew=1.4, lw=0)
    if math.isfinite(attack):
        grey = STANDINS["--attack"]
        axes.plot([attack], [y], marker="^", color=grey, markerfacecolor=PAPER, markersize=6, lw=0)
    if math.isfinite(value):
        axes.plot([value], [y], **stroke)


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_linewidth(0.7)
    axes.tick_params(colors=INK, labelsize=10, width=0.7, length=3)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
