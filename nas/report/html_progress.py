"""The growth of the hypervolume as inline SVG, with its quarters in a table."""

from nas.gauge import Unit
from nas.quantities import format_ms
from nas.report.html_tables import table, value
from nas.report.markup import Html, joined, tag, text
from nas.report.model import ProgressCurve
from nas.report.svg_plane import Axis, Plane
from nas.report.words import accuracy_number
from predictors.accuracy import AccuracyKind

_ENOUGH = 0.99


def progress_section(
    curve: ProgressCurve, *, trials: int, unit: Unit = "ms", kind: AccuracyKind = "proxy"
) -> Html:
    """Return the curve as a share of its last value; `trials` is how many there are to be."""
    enough = curve.reached(_ENOUGH)
    if enough is None:
        return tag("p", text("No trial has stayed within the budget yet."))
    last = curve.areas[-1]
    shares = [100 * found / last for found in curve.areas]
    plane = Plane(across=Axis(low=0, high=max(trials, len(shares))), up=Axis(low=0, high=100),
                  height=240)  # fmt: skip
    points = [(0.0, 0.0), *((float(i), share) for i, share in enumerate(shares, start=1))]
    drawing = plane.drawn(
        plane.stairs(points, "front stairs"), across="trials", up="hypervolume, % of the last",
        label=f"The hypervolume reaches {100 * _ENOUGH:.0f} % after {enough} trials",
    )  # fmt: skip
    accuracy, budget_ms = curve.reference
    words = (f"{100 * _ENOUGH:.0f} % were reached after {enough} of {len(shares)} trials. The area "
             f"is that above {accuracy_number(accuracy, kind)} (the lowest of any trial) and below "
             f"{format_ms(budget_ms)} {unit}, by the latencies and accuracies that the search "
             "saw.")  # fmt: skip
    return joined([tag("p", text(words)), drawing, _quarters(shares)])


def _quarters(shares: list[float]) -> Html:
    counts = sorted({max(len(shares) * k // 8, 1) for k in (1, 2, 4, 6, 8)})
    rows = [[text(n), value(shares[n - 1], f"{shares[n - 1]:.1f} %")] for n in counts]
    return table(["after trials", "hypervolume"], rows, caption="Hypervolume, % of the last")
