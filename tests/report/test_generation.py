import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from generator_runs import make_run

from axonal.core.errors import InputError
from axonal.generate.runs import compare
from axonal.report import generation
from axonal.report.charts import Point, Series, scatter, si, steps, ticks

CERTIFICATE = {
    "budget": 0.1,
    "output_error": 0.02,
    "layers": [{"name": "act", "threshold": 0.125, "error": 0.01, "share": 0.5}, {"name": "out"}],
}
FACTS = {"machine": "two cores", "seed": 7, "versions": {"axonal": "0.1", "numpy": "2.0"}}


@pytest.fixture
def runs():
    return [
        make_run("ANN coarse", fd=9.0, factor=0.5, skipping=0.25),
        make_run("ANN fine", fd=4.0, skipping=0.5),
        make_run("delta tight", "sigma_delta", fd=3.9, budget=0.05),
        make_run("delta loose", "sigma_delta", fd=12.0, factor=0.5),
        make_run("core", "trained_spiking", fd=6.0),
    ]


class Page(HTMLParser):
    """Collects attributes, and checks that what is opened is closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_self_contained_and_well_formed(runs):
    text = generation.html(runs, CERTIFICATE, "A report", FACTS, {"ANN fine, torch": 0.02})
    assert text.startswith("<!doctype html>")
    page = Page(text)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "iframe", "object"}
    links = [attrs[k] for _, attrs in page.seen for k in ("src", "href") if k in attrs]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\(|@import|https?://", text)


def test_report_names_every_run_fact_and_omission(runs):
    text = unescape(generation.html(runs, CERTIFICATE, "A report", FACTS))
    for wanted in (
        *(run.name for run in runs),
        "two cores",
        "axonal 0.1, numpy 2.0",
        "0.125",
        "Horowitz",
        "static",
    ):
        assert wanted in text
    assert "Spiking pays in operations" in text and "20% of the synaptic operations" in text


def test_report_escapes():
    hostile = "<script>alert('x')</script>&\"{{ 70707 * 2 }}"
    runs = [make_run(hostile), make_run(hostile + "2", "sigma_delta", sampler=hostile)]
    layers = [{"name": hostile, hostile: hostile}, "not a layer"]
    text = generation.html(runs, {hostile: hostile, "layers": layers}, hostile, {hostile: hostile})
    assert "<script" not in text and "141414" not in text
    assert hostile in unescape(text)
    Page(text)


@pytest.mark.parametrize("certificate", [{}, {"layers": None}, {"layers": [{}]}, {"budget": None}])
def test_report_with_little_certificate(runs, certificate):
    Page(generation.html(runs, certificate, "A report", {}))


def test_report_says_when_no_ann_is_as_good():
    runs = [make_run("ann", fd=9.0), make_run("delta", "sigma_delta", fd=2.0)]
    text = generation.html(runs, {}, "A report", {})
    assert "No ANN run reaches the quality of delta" in text


def test_report_says_when_spiking_loses():
    runs = [make_run("ann"), make_run("delta", "sigma_delta", factor=20)]
    text = generation.html(runs, {}, "A report", {})
    assert "Spiking loses in operations" in text and "spiking loses here" in text


def test_headline_is_the_cheapest_that_holds_the_quality(runs):
    assert compare(runs).spiking.name == "delta tight"
    runs.append(make_run("delta cheaper", "sigma_delta", fd=4.1, factor=0.7))
    choice = compare(runs)
    assert choice.spiking.name == "delta cheaper" and choice.best.name == "ANN fine"


def test_report_refuses(runs):
    with pytest.raises(InputError, match="give both"):
        generation.html(runs[:2], {}, "A report", {})
    with pytest.raises(InputError, match="same name"):
        generation.html([*runs, make_run("core")], {}, "A report", {})
    with pytest.raises(InputError, match="idle counts no"):
        generation.html([*runs, make_run("idle", factor=0)], {}, "A report", {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.41e8, "341 MJ"), (0, "0 J"), (999.9e-9, "1 µJ"), (1.5, "1.5 J"), (2e-12, "2 pJ")],
)
def test_si(value, text):
    assert si(value, "J") == text


def test_ticks_lie_within():
    for low, high, log in (
        (0.0, 7.3, False),
        (3.4, 90.0, True),
        (1e6, 4e9, True),
        (5.0, 5.5, True),
    ):
        places = ticks(low, high, log)
        assert 1 <= len(places) <= 9 and low <= min(places) and max(places) <= high


def test_charts_hold_every_point_inside():
    points = tuple(Point(10.0**i, 2.0**i, 1.9**i, 2.1**i, str(i), f"p{i}") for i in range(1, 7))
    drawn = str(scatter([Series("s", points, "ann-0")], "x", "y", 400, 300))
    centres = np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn), float)
    assert len(centres) == 6 and (centres > 0).all() and (centres < (400, 300)).all()
    bars = Series("b", tuple(Point(i, i, i, i, "", "t") for i in (1, 2, 3)), "delta-0")
    assert str(steps(bars, [], "x", "y", 400, 300)).count("<rect") == 3
