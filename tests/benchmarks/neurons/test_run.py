from benchmarks.neurons import run as neurons


def test_speed_figures_are_ratios_within_rounds():
    times = {
        ("axonal", "linear", 512): [1.0, 2.0, 4.0],
        ("axonal", "layer", 512): [1.2, 2.2, 4.0],
        ("norse", "layer", 512): [12.0, 44.0, 48.0],
    }
    figures = neurons.speed_figures(times, ["axonal", "norse"])
    assert figures["onm512_over_linear"] == {"value": 1.1, "low": 1.0, "high": 1.2}
    assert figures["onm512_vs_norse"] == {"value": 12.0, "low": 10.0, "high": 20.0}
    assert figures["ms [layer 512, norse]"]["value"] == 44_000
