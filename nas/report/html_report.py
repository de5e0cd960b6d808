"""The report of a run: one HTML file that needs nothing else, neither network nor JavaScript."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.candidate import Candidate
from nas.gauge import HEADING, form_words, source_words, unit_of
from nas.quantities import format_count, format_ms
from nas.report.html_calibration import calibration_section
from nas.report.html_failures import failure_section
from nas.report.html_front import draw_front
from nas.report.html_knobs import KnobView, knob_section, unit_of as unit_of_time
from nas.report.html_network import draw_network, network_legend, scale_of, stage_table
from nas.report.html_progress import progress_section
from nas.report.html_tables import kept, pairs, table, value
from nas.report.importance import MOST, find_knobs
from nas.report.markup import Html, joined, prose, tag, text
from nas.report.model import front_title, progress_curve, sources, view_of
from nas.report.tables import HEADINGS, closing_words
from nas.report.words import (
    accuracy_number,
    architecture_words,
    command_of,
    format_accuracy,
    latency_words,
    number_of,
)
from nas.run import Run
from nas.study.store import read_run
from predictors.accuracy import proxy_scores
from predictors.cost import cost
from predictors.measurement import Latency
from search_spaces.io import atomic_write

STYLE, SCRIPT = Path(__file__).with_name("report.css"), Path(__file__).with_name("report.js")
FILE = "report.html"
# A browser that keeps to it asks nobody for anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; `anchor` is what links to it."""

    anchor: str
    title: str
    content: Html


def write_html(run: Run, path: Path) -> None:
    """Write the report of a run, finished or not.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    atomic_write(path, html_report(run))


def html_report(run: Run) -> str:
    """Return the page."""
    candidates = run.candidates()
    front = [c for c in candidates if c.on_front]
    named = run.named()
    view = view_of(candidates, named, run.options.limit, run.options.unit)
    stored = read_run(run.folder)
    outcomes = [outcome for _, outcome in run.study.outcomes()]
    sections = [
        Section(anchor="front", title="The front",
                content=joined([draw_front(view), _front_table(front), _sizes_table(named)])),
        Section(anchor="networks", title="Its networks", content=_networks(front)),
        Section(anchor="knobs", title="Which knob buys what", content=_knobs(run, front)),
        Section(anchor="progress", title="Progress",
                content=progress_section(progress_curve(outcomes, run.options.limit),
                                         trials=run.options.trials, unit=run.options.unit,
                                         kind=run.estimator.kind)),
        Section(anchor="calibration", title="Predicted against measured latency",
                content=calibration_section(run.calibrations())),
        Section(anchor="failures", title="What went wrong",
                content=failure_section(run, stored.get("remarks", []))),
        Section(anchor="repeat", title="To repeat it", content=_repeat(run, stored)),
    ]  # fmt: skip
    source, aloud = sources(view)
    lead = [
        tag("p", text(front_title(view) + "."), class_="lead"),
        tag("p", text(source + "."), class_="loud" if aloud else None) if source else Html(""),
    ]
    return _page(run, lead, closing_words(run, front)[1:], sections)


def _page(
    run: Run, lead: Sequence[Html], notes: Sequence[str], sections: Sequence[Section]
) -> str:  # fmt: skip
    budgets = (f"{format_ms(t.budget_ms)} ms on {t.device}" for t in run.options.targets)
    title = f"Networks within {' and '.join(budgets)}"
    links = [tag("li", tag("a", text(s.title), href=f"#{s.anchor}")) for s in sections]
    header = tag(
        "header", tag("h1", text(title)), *lead,
        tag("p", text(run.device.description), class_="note"), tag("p", prose(_state(run))),
        *([tag("ul", *(tag("li", prose(note)) for note in notes))] if notes else []),
        tag("nav", tag("ul", *links), aria_label="Contents"),
    )  # fmt: skip
    parts = [
        tag("section", tag("h2", text(s.title), id=s.anchor), s.content, aria_labelledby=s.anchor)
        for s in sections
    ]
    foot = tag("footer", tag("p", text(f"fasternas {version('fasternas')}; run {run.folder}")))
    body = tag("body", header, tag("main", *parts), foot,
               tag("script", Html(SCRIPT.read_text(encoding="utf-8"))))  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Html:
    return tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", text(f"{title} \u2013 fasternas")),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )  # fmt: skip


def _state(run: Run) -> str:
    """How far the run is."""
    done, total = len(run.study.outcomes()), run.options.trials
    if run.study.growing:
        return f"{done} of {total} trials are done; the run is still going."
    if done < total:
        return f"{done} of {total} trials are done; `fasternas search --resume` goes on."
    return f"All {total} trials are done."


def _front_table(front: Sequence[Candidate]) -> Html:
    if not front:
        return Html("")
    header = ["network", HEADINGS[front[0].accuracy_kind], *_latency_headers(front[0]), "MACs",
              "params", "bytes moved"]  # fmt: skip
    rows = [
        [tag("a", text(f"{i}. {c.name}"), href=f"#network-{i}"),
         value(c.accuracy, accuracy_number(c.accuracy, c.accuracy_kind)), *_latencies(c),
         _count(c.macs), _count(c.params), _count(cost(c.config).memory_bytes)]
        for i, c in enumerate(front, start=1)
    ]  # fmt: skip
    return table(header, rows, caption="The front, the fastest first", class_="numbers")


def _sizes_table(named: Sequence[Candidate]) -> Html:
    if not named:
        return Html("")
    header = ["size", HEADINGS[named[0].accuracy_kind], *_latency_headers(named[0]), "MACs",
              "params"]  # fmt: skip
    rows = [
        [text(c.name.upper()), text(accuracy_number(c.accuracy, c.accuracy_kind)
              if c.accuracy == c.accuracy else "\u2013"),
         *_latencies(c), _count(c.macs), _count(c.params)]
        for c in named
    ]  # fmt: skip
    where = "these devices" if named[0].latency.parts else "this device"
    return table(header, rows, caption=f"FasterNet's published sizes on {where}",
                 class_="numbers")  # fmt: skip


def _count(number: int) -> Html:
    return value(number, format_count(number))


def _latency_headers(candidate: Candidate) -> list[str]:
    names = [HEADING[unit_of(candidate.latency)], *(f"{n} ms" for n, _ in candidate.latency.parts)]
    return [f"{name} [interval]" for name in names]


def _latencies(candidate: Candidate) -> list[Html]:
    """The latency and, of several devices, that on each."""
    return [_latency(m) for m in (candidate.latency, *(m for _, m in candidate.latency.parts))]


def _latency(found: Latency) -> Html:
    """A latency, never without its interval and where it is from."""
    numbers = kept(value(found.median_ms, format_ms(found.median_ms)), text(" ["),
                   value(found.low_ms, format_ms(found.low_ms)), text(" to "),
                   value(found.high_ms, format_ms(found.high_ms)), text("]"))  # fmt: skip
    return joined([numbers, text(f" {source_words(found)}{form_words(found)}")])


def _networks(front: Sequence[Candidate]) -> Html:
    if not front:
        return tag("p", text("There is no network on the front yet."))
    scale = scale_of([c.config for c in front])
    cards = [
        tag("article", tag("h3", text(f"{i}. {c.name}"), id=f"network-{i}"),
            tag("p", text(f"{number_of(c.accuracy_kind)} "
                          f"{format_accuracy(c.accuracy, c.accuracy_kind)}; "
                          f"{latency_words(c.latency)}; {format_count(c.macs)} MACs, "
                          f"{format_count(c.params)} parameters")),
            draw_network(c.config, scale, name=c.name), stage_table(c.config),
            tag("p", text(architecture_words(c.config)[-1]), class_="note"),
            aria_labelledby=f"network-{i}")
        for i, c in enumerate(front, start=1)
    ]  # fmt: skip
    return joined([network_legend(scale), tag("div", *cards, class_="cards")])


def _knobs(run: Run, front: Sequence[Candidate]) -> Html:
    """By the accuracies after equal trainings: those of the trials."""
    trials = [(config, o.scores.accuracy) for config, o in run.study.outcomes() if o.scores]
    bases = [c.config for c in front]
    known = run.predict_ms(bases)
    scores = None if run.estimator.kind == "proxy" else proxy_scores
    found = []
    if known is not None:
        found = find_knobs(run.space, trials, lambda configs: run.predict_ms(configs) or [],
                           bases=bases, scores=scores)  # fmt: skip
    return knob_section(KnobView(knobs=found, kind=run.estimator.kind,
                                 trials=min(len(trials), MOST),
                                 unit_ms=unit_of_time(run.options.limit),
                                 unit=run.options.unit))  # fmt: skip


def _repeat(run: Run, stored: Mapping[str, Any]) -> Html:
    machine = dict(stored.get("machine", {}))
    versions = dict(machine.pop("versions", {}))
    return joined([
        tag("pre", tag("code", text(command_of(run.options))), tabindex=0,
            aria_label="The command that repeats it"),
        tag("div", pairs(run.options.as_json(), caption="Options"),
            pairs({**machine, **versions}, caption="Machine and versions"), class_="columns"),
    ])  # fmt: skip
