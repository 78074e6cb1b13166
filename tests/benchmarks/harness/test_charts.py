from xml.etree import ElementTree

from axonal.report.charts import Point, Series, scatter
from benchmarks.harness import charts


def test_a_chart_in_a_file_is_an_svg_with_its_colours(tmp_path):
    points = tuple(Point(x, 2 * x, 2 * x, 2 * x, "", f"<{x}>") for x in (1.0, 5.0))
    series = [Series("a < b", points, "delta-0")]
    chart = scatter(series, "events", "us", 400, 300, straight=True)
    charts.write(tmp_path / "chart.svg", chart, series)
    text = (tmp_path / "chart.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "a < b" in "".join(root.itertext()) and "--delta-0" in text
    assert root.get("viewBox") == "0 -28 400 328"  # with room above for the legend
