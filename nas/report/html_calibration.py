"""Predicted against measured latency as inline SVG and as a table."""

from collections.abc import Sequence

import numpy as np

from nas.latencies import Calibration
from nas.quantities import format_ms
from nas.report.figures import calibration_title
from nas.report.html_tables import table, value
from nas.report.markup import Html, joined, tag, text
from nas.report.svg_plane import Axis, Plane, legend
from predictors.latency import COVERAGE, Prediction
from predictors.measurement import CONFIDENCE, Latency

_BAND = 0.1


def calibration_section(found: Sequence[Calibration]) -> Html:
    """Return what the predictor said of networks that it had not seen, and what a clock said."""
    if not found:
        return tag("p", text("No network has been timed that the latency predictor had not seen: "
                             "there is nothing to compare."))  # fmt: skip
    if len(found) == 1:
        return _compared(found[0].prediction, found[0].measured)
    return joined([
        part for c in found
        for part in (tag("h3", text(c.device)), _compared(c.prediction, c.measured))
    ])  # fmt: skip


def _compared(prediction: Prediction, measured: Sequence[Latency]) -> Html:
    medians = np.array([m.median_ms for m in measured])
    covered = np.mean((prediction.low_ms <= medians) & (medians <= prediction.high_ms))
    words = (f"{calibration_title(prediction, measured)}: {len(measured)} networks that the "
             f"predictor had not seen; its {100 * COVERAGE:.0f} % interval holds "
             f"{100 * covered:.0f} % of the measured medians.")  # fmt: skip
    drawing = tag("div", _drawing(prediction, measured), class_="square")
    return joined([tag("p", text(words)), drawing, _legend(), _table(prediction, measured)])


def _drawing(prediction: Prediction, measured: Sequence[Latency]) -> Html:
    low = min(*prediction.low_ms, *(m.low_ms for m in measured)) / 1.1
    high = max(*prediction.high_ms, *(m.high_ms for m in measured)) * 1.1
    axis = Axis(low=float(low), high=float(high), logarithmic=True)
    plane = Plane(across=axis, up=axis)
    band = 1 + _BAND
    marks = [
        plane.line((low, low), (high, high), "same"),
        plane.line((low, low * band), (high / band, high), "band"),
        plane.line((low * band, low), (high, high / band), "band"),
    ]
    for m, mean, lower, upper in zip(measured, prediction.mean_ms, prediction.low_ms,
                                     prediction.high_ms, strict=True):  # fmt: skip
        at = (m.median_ms, float(mean))
        words = (f"measured {format_ms(m.median_ms)} ms [{format_ms(m.low_ms)} to "
                 f"{format_ms(m.high_ms)}]\npredicted {format_ms(mean)} ms [{format_ms(lower)} to "
                 f"{format_ms(upper)}]")  # fmt: skip
        dot = tag("circle", r=4, class_="front measured")
        marks += [
            plane.line((m.median_ms, float(lower)), (m.median_ms, float(upper)), "front interval"),
            plane.line((m.low_ms, float(mean)), (m.high_ms, float(mean)), "clock interval"),
            plane.at(at, tag("g", tag("title", text(words)), dot, class_="point", role="img")),
        ]  # fmt: skip
    return plane.drawn(
        *marks, across="measured latency in ms", up="predicted latency in ms", role="group",
        label="Predicted over measured latencies; the table has them",
    )  # fmt: skip


def _legend() -> Html:
    def across(look: str) -> Html:
        return tag("line", x1=-9, x2=9, y1=0, y2=0, class_=look)

    return legend([
        (tag("line", x1=0, x2=0, y1=-7, y2=7, class_="front interval"),
         f"predicted, {100 * COVERAGE:.0f} % interval"),
        (across("clock interval"), f"measured, {100 * CONFIDENCE:.0f} % interval"),
        (across("same"), "predicted = measured"),
        (across("band"), f"\u00b1{100 * _BAND:.0f} %"),
    ])  # fmt: skip


def _table(prediction: Prediction, measured: Sequence[Latency]) -> Html:
    order = sorted(range(len(measured)), key=lambda i: measured[i].median_ms)
    rows = [
        [text(n),
         _latency(measured[i].median_ms, measured[i].low_ms, measured[i].high_ms),
         _latency(prediction.mean_ms[i], prediction.low_ms[i], prediction.high_ms[i]),
         text(f"{100 * (prediction.mean_ms[i] / measured[i].median_ms - 1):+.1f} %")]
        for n, i in enumerate(order, start=1)
    ]  # fmt: skip
    whole = table(
        ["network", f"measured ms, {100 * CONFIDENCE:.0f} % interval",
         f"predicted ms, {100 * COVERAGE:.0f} % interval", "error"],
        rows, caption="Predicted against measured latency",
    )  # fmt: skip
    return tag("details", tag("summary", text("The numbers")), whole)


def _latency(ms: float, low: float, high: float) -> Html:
    return joined(
        [value(float(ms), format_ms(ms)), text(f" [{format_ms(low)} to {format_ms(high)}]")]
    )
