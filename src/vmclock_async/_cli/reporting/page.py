"""A report as one page of HTML that holds all it needs: no picture, script or style is loaded from anywhere.

Its Content-Security-Policy forbids every load, so that the browser itself sees to it. All that the picture shows of
marks and figures is also in tables, for those who cannot see it, and where no script may run.
"""

import json
from collections.abc import Iterable
from enum import IntEnum
from html import escape
from importlib.resources import files
from typing import Final

from plotly.offline import get_plotlyjs

from vmclock_async._cli.reporting.distribution import Quantiles
from vmclock_async._cli.reporting.figure import band_color, figure, folded_marks
from vmclock_async._cli.reporting.series import Report
from vmclock_async._notation import duration_text
from vmclock_async.abi import CounterId, TimeType

__all__ = ("MARKER", "page")

MARKER: Final = "<!doctype html><!-- vmclock-async report -->"
"""How a page begins, by which one knows that a file is a report."""
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


def page(report: Report) -> str:
    """The page."""
    name = escape(report.path.rpartition("/")[2])
    return f"""{MARKER}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: bound of the time</title>
<style>{_part("page.css")}</style>
</head>
<body>
<header>
<h1>{name}</h1>
<p class="quiet">{_about(report)}</p>
</header>
<main>
<h2 id="over-time">Bound of the time</h2>
<a class="skip" href="#events">Skip the picture: everything in it is also in the tables</a>
<p class="quiet">{_legend(report)}</p>
<noscript><p>The picture needs JavaScript; the tables below do not.</p></noscript>
<div id="picture" role="group" aria-labelledby="over-time" aria-describedby="summary"></div>
<p class="quiet">{_thinning(report)}</p>
<div class="tables" id="summary">
<section>{_quantiles(report)}</section>
<section>{_states(report)}</section>
</div>
<section>{_events(report)}</section>
</main>
<script type="application/json" id="figure">{_embedded(report)}</script>
<script>{get_plotlyjs()}</script>
<script>{_part("page.js")}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _embedded(report: Report) -> str:
    """The figure as JSON, in which nothing ends the script that it stands in."""
    return json.dumps(figure(report), separators=(",", ":")).replace("<", "\\u003c")


def _about(report: Report) -> str:
    header = report.header
    return (
        f"{report.records:,} records in {duration_text(report.duration_ns, to_nearest=True)}, recorded from "
        f"{header.created:%Y-%m-%d %H:%M:%S %Z}; counter {_name(CounterId, header.counter_id)}, "
        f"timescale {_name(TimeType, header.time_type)}"
    )


def _name(kind: type[IntEnum], value: int) -> str:
    return kind(value).name if value in set(kind) else str(value)


def _thinning(report: Report) -> str:
    return (
        f"Drawn in columns of {duration_text(report.column_ns)}: of each, the first, the lowest, the highest and the "
        "last value. The line has a gap where readers had no time. What CLOCK_REALTIME said is not in a recording."
    )


def _legend(report: Report) -> str:
    return "Background: " + ", ".join(_status(status) for status in report.status_ns)


def _status(status: str) -> str:
    return f'<span class="status" style="--color: var({band_color(status)})">{escape(status)}</span>'


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells are HTML, and all but the first of a row are numbers."""
    head = "".join(f'<th scope="col"{_class(at)}>{text}</th>' for at, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{_class(at)}>{cell}</td>" for at, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<h2>{caption}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _class(at: int) -> str:
    return ' class="number"' if at else ""


def _quantiles(report: Report) -> str:
    rows = [_row("bound", report.bound_ns), _row("update interval", report.update_interval_ns)]
    return _table("Quantiles", ("", "p50", "p90", "p99", "max"), rows)


def _row(name: str, quantiles: Quantiles | None) -> list[str]:
    return [name, *("none" if quantiles is None else duration_text(value) for value in quantiles or [0] * 4)]


def _states(report: Report) -> str:
    lengths = [(_status(status), length) for status, length in report.status_ns.items()]
    lengths.append(("no bounded time, in any of these", report.unbounded_ns))
    rows = (
        (name, duration_text(length, to_nearest=True), f"{length / max(report.duration_ns, 1):.2%}")
        for name, length in lengths
    )
    return _table("Time in each status", ("", "time", "share"), rows)


def _events(report: Report) -> str:
    marks = folded_marks(report)
    if not marks:
        return '<h2 id="events">Events</h2><p>No disruption, restore, announcement or gap.</p>'
    rows = "".join(
        f'<tr><td class="moment">{mark.t_ns / 10**9:.6f} s</td>'
        f'<td><button type="button" data-mark="{at}">{escape(mark.text)}</button></td></tr>'
        for at, mark in enumerate(marks)
    )
    return (
        '<h2 id="events">Events</h2><p class="quiet">Times since the first record. Choose an event to see it in the '
        f"picture.</p><table><tbody>{rows}</tbody></table>"
    )
