"""The report is one whole page of HTML: escaped, readable, alone, and right in its numbers."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from run_folders import HOSTILE, OPTIONS, make_run
from specs import on

from nas.cli.main import main
from nas.report.html import command_of, html_report
from nas.report.model import ReportModel, write_report
from nas.report.tables import stages_of
from nas.run_folder import read_only_run
from nas.search.trial import Outcome
from nas.study.options import FieldChoices, SearchOptions
from nas.study.store import Study, hold

ALONE = {"meta", "link", "br"}
Streams = pytest.CaptureFixture[str]


class Page(HTMLParser):
    """What a browser sees of a page; fails where tags are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []  # the tag that holds them, and they
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.words.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self) -> str:
        return "".join(words for tag, words in self.words if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run, with strings that are hostile wherever a user chooses them."""
    folder = tmp_path_factory.mktemp("runs") / HOSTILE.replace("/", "-")
    make_run(folder)
    return folder


def _html(folder: Path) -> str:
    return html_report(ReportModel(read_only_run(folder)))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return _html(folder)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_asked_of_the_network(html: str, page: Page) -> None:
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not re.search(r"https?:|//\w", re.sub(r"<script>.*</script>", "", html, flags=re.S)), (
        "a URL"
    )
    assert not re.search(r"\bsrc=|@import|url\((?!#)|fetch\(|XMLHttp", html)
    assert "default-src 'none'" in page.all("meta")[2]["content"]  # type: ignore[operator]


def test_what_users_name_is_text(html: str, page: Page) -> None:
    assert len(page.all("script")) == 1
    assert "<script>alert" not in html
    for words in (
        f"pictures/{HOSTILE}",
        f"A board {HOSTILE}",
        f"ValueError: {HOSTILE}",
        f"Board {HOSTILE} was lost.",
    ):
        assert words in page.text()
    assert "<script>alert('x')<-script>" in page.text()  # the run folder


def test_headings_are_in_order_and_anchors_lead_somewhere(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert set(ids.values()) == {1}
    links = [a["href"] for a in page.all("a")]
    assert links
    assert {link[1:] for link in links if link} <= ids.keys()
    labels = [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]
    assert set(labels) <= ids.keys()


def test_tables_say_what_their_headers_head(page: Page) -> None:
    assert len(page.all("table")) > 6
    assert {th["scope"] for th in page.all("th")} == {"col", "row"}


def test_every_drawing_has_a_name_or_is_decoration(page: Page) -> None:
    assert len(page.all("svg")) > 8
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    points = [g for g in page.all("g") if g.get("class") == "point"]
    assert len(page.all("title")) == 1 + len(points)  # each says what it is
    assert any(g.get("tabindex") == "0" for g in points)


def test_figures_are_there_for_a_desk_and_for_a_phone(folder: Path, page: Page) -> None:
    looks = [svg["class"] for svg in page.all("svg") if "figure" in (svg.get("class") or "")]
    wide_and_narrow = ["figure wide", "figure narrow"]
    assert looks == [*wide_and_narrow, *wide_and_narrow, "figure square"]
    points = Counter(words for tag, words in page.words if tag == "title")
    view = ReportModel(read_only_run(folder)).view
    for i, network in enumerate(view.front, start=1):
        assert points[network.lines(f"{i}. {network.name}")] == 2
    assert sum(points.values()) > 2 * len(view.shown)


def test_the_numbers_are_those_of_the_csv(folder: Path, page: Page) -> None:
    model = ReportModel(read_only_run(folder))
    write_report(model)
    with (folder / "pareto.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [float(data["value"] or "nan") for data in page.all("data")]
    expected = [
        float(row[name])
        for row in rows
        for name in ("accuracy", "latency_ms", "low_ms", "high_ms", "macs", "params")
    ]
    assert len(model.front) == len(rows) > 1
    cells = [number for i, number in enumerate(shown[: 7 * len(rows)]) if i % 7 < 6]
    assert cells == expected  # the seventh of each row are the bytes moved
    for i, row in enumerate(rows, start=1):
        assert f"{i}. {Path(row['config']).stem}" in page.text()


def test_each_latency_has_an_interval_and_a_source(page: Page) -> None:
    points = [words for tag, words in page.words if tag == "title"][1:]
    interval = r"ms \[[\d.]+ to [\d.]+\]"
    pattern = rf"{interval} (measured|predicted)"
    both = rf"measured [\d.]+ {interval}\npredicted [\d.]+ {interval}"
    assert points
    assert all(re.search(pattern, words) or re.fullmatch(both, words) for words in points)
    assert re.search(rf"accuracy [\d.]+ %; [\d.]+ {pattern}", page.text())


def test_the_page_says_what_was_found(page: Page) -> None:
    text = page.text()
    assert re.search(r"best spent on .*stage 3 depth", text)
    assert "Modelled, not measured" in text
    assert "All 30 trials are done." in text
    assert "Half of the predicted latencies are within" in text
    assert "timings stayed unstable" in text
    assert command_of(OPTIONS) in text
    assert "onnxruntime 1.0" in text
    assert "nan" not in text.lower().split()


def test_ingredients_are_drawn_and_said(tmp_path: Path) -> None:
    stars = FieldChoices(field="mlps", values=("plain", "star"))
    options = replace(OPTIONS, space="pconv-32", choices=(stars,))
    make_run(tmp_path / "run", options, failed=False)
    model = ReportModel(read_only_run(tmp_path / "run"))
    page = Page(html_report(model))
    stages = [s for c in model.front for s in stages_of(c.config)]
    looks = Counter(r.get("class") for r in page.all("rect"))
    for look, wanted in (
        ("attended", [s.attention for s in stages]),
        ("gated", [s.gate for s in stages]),
        ("star", [s.star for s in stages]),
    ):
        blocks = sum(s.depth for s, there in zip(stages, wanted, strict=True) if there)
        assert looks[look] == blocks
        assert any(span.get("class") == look for span in page.all("span")) == (blocks > 0)
    assert looks["gated"] > 0
    assert looks["star"] > 0
    for stage in stages:
        assert not stage.ingredients or ", ".join(stage.ingredients) in page.text()


def test_the_page_says_which_ingredient_paid(tmp_path: Path, page: Page) -> None:
    make_run(tmp_path / "run", replace(OPTIONS, space="pconv-32", trials=48), trials=48)
    model = ReportModel(read_only_run(tmp_path / "run"))
    text = Page(html_report(model)).text()
    found = model.ingredients
    assert len(found.effects) >= 8
    assert found.finding in text
    assert "fitted to 47 trials" in text  # one of them failed
    assert f"fitted to {found.timed} timed networks" in text
    for effect in found.effects:
        assert effect.words in text
        assert found.accuracy_words(effect) in text
        assert found.latency_words(effect) in text
    seven = next(e for e in found.effects if (e.field, e.value) == ("kernels", 7))
    assert seven.costs  # 49 multiplications for 9
    assert "Which ingredient paid" in page.text()  # an activation and widths of heads are some


def test_a_network_is_drawn_to_scale(folder: Path, page: Page) -> None:
    front = [c for c in read_only_run(folder).candidates() if c.on_front]
    bars = [r for r in page.all("rect") if r.get("class") == "through"][1:]  # the legend's first
    dark = [r for r in page.all("rect") if r.get("class") == "convolved"][1:]
    heights = iter([float(r["height"] or 0) for r in bars])
    convolved = iter([float(r["height"] or 0) for r in dark])
    largest = max(max(c.config.widths) for c in front)
    for config in (c.config for c in front):
        for i, depth in enumerate(config.depths):
            for _ in range(depth):
                high = next(heights)
                assert high == pytest.approx(96 * config.widths[i] / largest, abs=0.01)
                share = config.partial_widths[i] / config.widths[i]
                assert next(convolved) == pytest.approx(share * high, abs=0.02)
    assert next(heights, None) is None


KINDS = [
    replace(
        OPTIONS, accuracy="estimate", data="", devices=on("cpu", 0.001)
    ),  # nothing is within it
    replace(OPTIONS, trials=60, data="digits"),  # not finished
]


@pytest.mark.parametrize("options", KINDS, ids=["estimate", "unfinished"])
def test_other_runs_are_read_too(options: SearchOptions, tmp_path: Path) -> None:
    searching = options.trials == 60
    make_run(tmp_path / "run", options, timed=48 if searching else 56)
    text = Page(_html(tmp_path / "run")).text()
    if options.accuracy == "estimate":
        assert "No network within" in text
        assert "There is no network on the front yet." in text
        assert "estimated top-1" in text
    if searching:
        assert "Latencies PREDICTED, not measured." in text
        assert "best spent on" in text
        assert "30 of 60 trials are done; fasternas search --resume goes on." in text  # as code


@pytest.mark.parametrize(("trials", "timed"), [(0, 0), (0, 30), (5, 49)])
def test_a_run_that_has_hardly_begun_is_read(tmp_path: Path, trials: int, timed: int) -> None:
    make_run(tmp_path / "run", trials=trials, timed=timed)
    text = Page(_html(tmp_path / "run")).text()
    assert f"{trials} of 30 trials are done" in text
    assert "Too little is known yet" in text


def test_a_run_that_goes_on_is_read(tmp_path: Path) -> None:
    make_run(tmp_path / "run", trials=14)
    with hold(tmp_path / "run"), (tmp_path / "run" / "study.journal").open("a") as file:
        file.write('{"half": ')
        file.flush()
        text = Page(_html(tmp_path / "run")).text()
    assert "14 of 30 trials are done; the run is still going." in text


def test_a_run_of_which_nothing_succeeded_is_read(tmp_path: Path) -> None:
    make_run(tmp_path / "run", trials=0)
    space = OPTIONS.open_space()
    study = Study(tmp_path / "run", space, OPTIONS.budgets_ms)
    for number in range(3):
        study.keep(
            (number,) * 2 + (0,) * (len(space.genes) - 2), Outcome(number, None, "out of luck")
        )
    study.close()
    text = Page(_html(tmp_path / "run")).text()
    assert "out of luck" in text
    assert "0, 1, 2" in text


def test_the_command_writes_the_file_and_says_where(tmp_path: Path, capsys: Streams) -> None:
    make_run(tmp_path / "run", trials=5)
    before = {path.name for path in (tmp_path / "run").iterdir()}
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    assert {p.name for p in (tmp_path / "run").iterdir()} == before | {"report.html"}
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "mine.html")]) == 0
    assert (tmp_path / "mine.html").read_bytes() == (tmp_path / "run/report.html").read_bytes()


def test_a_file_that_is_no_report_is_not_replaced(tmp_path: Path, capsys: Streams) -> None:
    make_run(tmp_path / "run", trials=5)
    for name in ("run.json", "study.journal"):
        before = (tmp_path / "run" / name).read_bytes()
        assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "run" / name)]) == 2
        assert "`out` must be a new file, or a report" in capsys.readouterr().err
        assert (tmp_path / "run" / name).read_bytes() == before
    (tmp_path / "other.html").write_text("<!DOCTYPE html>\n<title>mine</title>\n")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "other.html")]) == 2
    assert "is a file of something else. Name another." in capsys.readouterr().err
    (tmp_path / "link.html").symlink_to("real.html")
    for _ in range(2):  # a new file, and an earlier report
        assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "link.html")]) == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text().startswith("<!DOCTYPE html>")


def _code(arguments: list[str]) -> object:
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


def _refusals(tmp_path: Path) -> Iterator[tuple[list[str], str]]:
    run = tmp_path / "run"
    yield [str(tmp_path)], "`run` must be a folder that `fasternas search` wrote, but"
    yield [str(run), "--out", str(tmp_path / "no" / "r.html")], "No such file or directory"
    yield [str(run), "--out", str(tmp_path)], "directory"
    yield [str(run), "--out", ""], "must not be empty"


def test_mistakes_are_one_line(tmp_path: Path, capsys: Streams) -> None:
    make_run(tmp_path / "run", trials=0)
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in _refusals(tmp_path):
        assert _code(["report", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert words in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_journal_that_was_cut_off_is_repaired_on_request(tmp_path: Path, capsys: Streams) -> None:
    make_run(tmp_path / "run", trials=4)
    with (tmp_path / "run" / "study.journal").open("a") as file:
        file.write('{"half": ')
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "--repair" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run"), "--repair"]) == 0
