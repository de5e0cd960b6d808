"""What went wrong in a run: trials and trainings that failed, timings that stayed unstable."""

from collections import defaultdict
from collections.abc import Sequence

from nas.report.html_tables import table
from nas.report.markup import Html, joined, prose, tag, text
from nas.run import Run

_MOST_NAMED = 12


def failure_section(run: Run, remarks: Sequence[str]) -> Html:
    """Return the failures by their reason, and what else was not as expected."""
    failed = _by_reason(run)
    others = [*_unstable(run), *remarks]
    if not failed and not others:
        return tag("p", text("Nothing: no trial failed."))
    rows = [[prose(reason), text(what), text(len(names)), text(_named(names))]
            for (what, reason), names in failed.items()]  # fmt: skip
    lines = [tag("li", prose(line)) for line in others]
    return joined([
        table(["reason", "what failed", "times", "which"], rows, caption="Failures by reason"),
        tag("ul", *lines) if lines else Html(""),
    ])  # fmt: skip


def _by_reason(run: Run) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    numbers = {}
    for config, outcome in run.study.outcomes():
        numbers[config] = outcome.number
        if outcome.scores is None:
            found["trial", outcome.error or "unknown"].append(str(outcome.number))
    for config, trainings in run.study.trainings.items():
        for epochs, training in trainings.items():
            if training.accuracy is None:
                name = f"{numbers.get(config, '?')} at {epochs} epochs"
                found["longer training", training.error or "unknown"].append(name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _unstable(run: Run) -> list[str]:
    measured = run.study.measurements.values()
    count = sum(m.unstable for m in measured)
    if not count:
        return []
    return [f"{count} of {len(measured)} timings stayed unstable: their intervals are wider than "
            "\u00b12 %, or processes contradicted one another."]  # fmt: skip


def _named(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
