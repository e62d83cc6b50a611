"""The picture of a report, as plotly.js takes it: a dict of traces and layout.

A color that begins with ``--`` names one in page.css, where the dark mode has others.
"""

from bisect import bisect_right
from itertools import groupby
from math import log10
from typing import Any, Final

from vmclock_async._cli.reporting.columns import LARGEST, Point
from vmclock_async._cli.reporting.scale import Scale
from vmclock_async._cli.reporting.series import Band, Mark, Report
from vmclock_async._notation import duration_text

__all__ = ("band_color", "figure", "folded_bands", "folded_marks")

_S: Final = 10**9
_UNITS: Final = (("days", 86400 * _S, 10), ("hours", 3600 * _S, 10), ("minutes", 60 * _S, 10), ("seconds", _S, 0))
"""Units of the time axis, and how many of one there have to be."""
_COLORS: Final = {
    "SYNCHRONIZED": "--synchronized",
    "FREERUNNING": "--freerunning",
    "INITIALIZING": "--initializing",
    "several": "--several",
}
_SYMBOLS: Final = {
    "disrupted": ("x", "--other"),
    "restored": ("star", "--several"),
    "unbounded": ("octagon-open", "--other"),
    "maintenance": ("triangle-up", "--freerunning"),
    "leap": ("diamond", "--line"),
    "gap": ("line-ns-open", "--quiet"),
}
"""Symbol and color of each kind of mark; the gravest are on top."""
_MANY_TICKS: Final = 7
_MANY_MARKS: Final = 500
"""From here on, marks of one kind in one column are one."""


def band_color(status: str) -> str:
    """The name of the color for *status*."""
    return _COLORS.get(status, "--other")


def folded_marks(report: Report) -> list[Mark]:
    """The marks; if there are many, those of one kind in one column as one that says how many they are."""
    if len(report.marks) <= _MANY_MARKS:
        return report.marks
    marks: list[Mark] = []
    kinds = sorted(report.marks, key=lambda mark: (mark.kind, mark.t_ns))
    for _, group in groupby(kinds, key=lambda mark: (mark.kind, mark.t_ns // report.column_ns)):
        first, *others = group
        if others:
            within = duration_text(others[-1].t_ns - first.t_ns)
            first = first._replace(text=f"{first.text}; {len(others)} more within {within}")
        marks.append(first)
    return sorted(marks, key=lambda mark: mark.t_ns)


def folded_bands(report: Report) -> list[Band]:
    """The bands; if there are many, neighbors that are each narrower than a column as one of "several"."""
    if len(report.bands) <= LARGEST:
        return report.bands
    bands: list[Band] = []
    for band in report.bands:
        narrow = band.end_ns - band.begin_ns < report.column_ns
        if narrow and bands and bands[-1].status == "several":
            bands[-1] = bands[-1]._replace(end_ns=band.end_ns)
        else:
            bands.append(band._replace(status="several") if narrow else band)
    return bands


def figure(report: Report) -> dict[str, Any]:
    """Traces and layout; the marks are the last trace, in the order of `folded_marks`."""
    unit, size = next((name, size) for name, size, least in _UNITS if report.duration_ns >= least * size)
    bands = folded_bands(report)
    marks = folded_marks(report)
    return {
        "data": [
            _line(report.bound, size, "y", _bound_texts(report.bound, bands), unit),
            # A record's interval is drawn over the time that it took: vertically first, then up to the record.
            _line(report.update_intervals, size, "y3", _interval_texts(report.update_intervals), unit, shape="vh"),
            _verticals(marks, size),
            _marks(marks, size, unit),
        ],
        "layout": _layout(unit, report, report.duration_ns / size, marks)
        | {"shapes": [_shape(band, size) for band in bands]},
    }


def _bound_texts(points: list[Point], bands: list[Band]) -> list[str]:
    begins = [band.begin_ns for band in bands]
    statuses = [bands[bisect_right(begins, point.t_ns) - 1].status for point in points]
    return [f"bound {duration_text(p.value or 0)}<br>{status}" for p, status in zip(points, statuses, strict=True)]


def _interval_texts(points: list[Point]) -> list[str]:
    return [f"update interval {duration_text(point.value or 0)}" for point in points]


def _line(
    points: list[Point], size: int, axis: str, texts: list[str], unit: str, *, shape: str = "linear"
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers" if len(points) == 1 else "lines",
        "x": [point.t_ns / size for point in points],
        # A logarithmic axis has no 0: such a bound is drawn as 1 ns, and its text says 0.
        "y": [None if point.value is None else max(point.value, 1) for point in points],
        "text": texts,
        "hovertemplate": f"%{{text}}<br>at %{{x}} {unit}<extra></extra>",
        "connectgaps": False,
        "yaxis": axis,
        "line": {"color": "--line", "width": 1.5, "shape": shape},
        "marker": {"color": "--line"},
    }


def _verticals(marks: list[Mark], size: int) -> dict[str, Any]:
    """A line through the bound at each mark but gaps, of which there may be thousands."""
    moments = sorted({mark.t_ns for mark in marks if mark.kind != "gap"})
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [t_ns / size for t_ns in moments for _ in range(3)],
        "y": [0, 1, None] * len(moments),
        "hoverinfo": "skip",
        "yaxis": "y4",
        "line": {"color": "--quiet", "width": 1, "dash": "dot"},
    }


def _marks(marks: list[Mark], size: int, unit: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [mark.t_ns / size for mark in marks],
        "y": [mark.kind for mark in marks],
        "text": [mark.text for mark in marks],
        "hovertemplate": f"%{{text}}<br>at %{{x}} {unit}<extra></extra>",
        "yaxis": "y2",
        "cliponaxis": False,
        "marker": {
            "size": 11,
            "symbol": [_SYMBOLS[mark.kind][0] for mark in marks],
            "color": [_SYMBOLS[mark.kind][1] for mark in marks],
            "line": {"width": 1.5, "color": [_SYMBOLS[mark.kind][1] for mark in marks]},
        },
    }


def _shape(band: Band, size: int) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": band.begin_ns / size,
        "x1": band.end_ns / size,
        "yref": "y domain",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": band_color(band.status),
        "opacity": 0.16,
    }


def _layout(unit: str, report: Report, duration: float, marks: list[Mark]) -> dict[str, Any]:
    kinds = [kind for kind in reversed(_SYMBOLS) if any(mark.kind == kind for mark in marks)]
    plain = {"gridcolor": "--rule", "zeroline": False, "linecolor": "--rule", "automargin": False}
    lanes = 0.035 * len(kinds)
    return {
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--text"},
        "hoverlabel": {
            "bgcolor": "--back",
            "bordercolor": "--quiet",
            "font": {"color": "--text"},
            "align": "left",
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "--quiet", "activecolor": "--text"},
        "margin": {"l": 88, "r": 16, "t": 32, "b": 48},
        "xaxis": plain
        | {"title": {"text": f"{unit} since the first record"}, "anchor": "y3"}
        | {"range": [-0.02 * duration, 1.02 * duration] if duration else [-1, 1]},
        "yaxis": plain | _scale(report.bound) | {"domain": [0.3, 0.97 - lanes], "title": _title("bound")},
        "yaxis2": plain
        | {"domain": [0.99 - lanes, 1], "type": "category", "categoryarray": kinds, "showgrid": False}
        | {"visible": bool(kinds), "fixedrange": True, "range": [-0.6, len(kinds) - 0.4]},
        "yaxis3": plain
        | _scale(report.update_intervals)
        | {"domain": [0, 0.24], "title": _title("update interval")},
        "yaxis4": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }


def _scale(points: list[Point]) -> dict[str, Any]:
    """A logarithmic axis around *points*."""
    scale = Scale.around((point.value for point in points if point.value is not None), most_ticks=_MANY_TICKS)
    return {
        "type": "log",
        "range": [log10(scale.low), log10(scale.high)],
        "tickvals": scale.ticks,
        "ticktext": [duration_text(value) for value in scale.ticks],
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 4, "font": {"size": 13}}
