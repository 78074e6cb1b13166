"""A chip that is one TOML file: what it prices, what it leaves out, and what it refuses."""

import numpy as np
import pytest
from generator_runs import dense_counts, event_counts

from axonal.core.errors import InputError
from axonal.core.meter import FIELDS, Counts
from axonal.energy import break_even, price, tables

ABOUT = 'source = "This test"\nyear = 2024\nevidence = "recalled"\nnote = "by hand"\n'


def row(key, low, nominal, high, unit):
    figures = f"low = {low}\nnominal = {nominal}\nhigh = {high}\n"
    return f'[rows.{key}]\n{figures}unit = "{unit}"\n{ABOUT}'


CHIP = f"""
kind = "chip"
title = "Toy chip"
evidence = "modelled"
graded = true
scenarios = {{ low = "0.5 V", nominal = "0.75 V", high = "0.9 V" }}
omits = ["the host"]

[rows.hop]
unknown = "nobody measured it"
{row("synop", 1, 2, 4, "pJ")}
{row("spike", 10, 10, 10, "pJ")}
{row("update", 0.1, 0.1, 0.2, "nJ")}
{row("static", 5, 10, 20, "mW")}
"""


@pytest.fixture
def dense():
    return dense_counts()


@pytest.fixture
def events():
    return event_counts()


@pytest.fixture
def toy(tmp_path):
    """Loads a chip that is one TOML file, in which a text may be replaced."""

    def read(old="", new=""):
        path = tmp_path / f"toy{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(CHIP.replace(old, new))
        return tables.load(str(path))

    return read


def test_a_chip_is_one_file(events, toy):
    # 400 synaptic operations, 40 spikes and 200 updates of a neuron; 2 ms.
    chip = toy()
    energy = price(events, chip, seconds=2e-3)
    parts = {key: tuple(part) for key, part in energy.parts.items()}
    assert parts == {
        "synop": pytest.approx((400e-12, 800e-12, 1600e-12)),
        "spike": pytest.approx((400e-12, 400e-12, 400e-12)),
        "update": pytest.approx((20e-9, 20e-9, 40e-9)),
        "static": pytest.approx((10e-6, 20e-6, 40e-6)),
    }
    assert energy.unknown == ("hop: nobody measured it",)
    text = str(energy)
    assert text.startswith("at least ") and "Left out: the host. Unknown: hop: nobody" in text
    assert "Toy chip (low: 0.5 V" in text and "This test" in text
    with pytest.raises(InputError, match="no row 'hop'; nobody measured it"):
        chip["hop"]


def test_what_a_run_does_not_tell_stays_unknown(events, toy):
    hop = row("hop", 3, 3, 3, "pJ")
    chip = toy('[rows.hop]\nunknown = "nobody measured it"', hop)
    assert price(events, chip).unknown == (
        "hop: no hops a spike are given",
        "static: no seconds a sample are given",
    )
    energy = price(events, chip, hops=2.5, seconds=1.0)
    assert energy.unknown == () and not str(energy).startswith("at least")
    assert tuple(energy.parts["hop"]) == pytest.approx(3 * (300e-12,))


def test_a_chip_leaves_dense_layers_to_the_host(events, dense, toy):
    table = np.concatenate([events.table, dense.table], axis=1)
    hybrid = price(Counts((*events.layers, "shell"), table, 1), toy())
    assert hybrid.total == price(events, toy()).total
    assert "2e+03 multiply-adds beside the chip, of layers without events: shell" in str(hybrid)
    with pytest.raises(InputError, match="no layer works by events, and Toy chip runs no others"):
        price(dense, toy())


def test_a_chip_of_binary_spikes_refuses_graded_ones(events, toy):
    chip = toy("graded = true", "graded = false")
    with pytest.raises(InputError, match=r"delta\.conv reads spikes that carry values"):
        price(events, chip)
    binary = events.table.copy()
    binary[..., FIELDS.index("multiplies")] = 0
    assert price(Counts(events.layers, binary, 1), chip).total == price(events, toy()).total


def test_a_comparison_needs_a_datapath(events, dense, toy):
    with pytest.raises(InputError, match="Toy chip runs no ANN to compare with"):
        break_even(events, dense, toy())


@pytest.mark.parametrize("run", [{"hops": -1.0}, {"seconds": float("nan")}])
def test_runs_on_a_chip_are_checked(events, toy, run):
    with pytest.raises(InputError, match=next(iter(run))):
        price(events, toy(), **run)
    with pytest.raises(InputError, match="45 nm"):
        price(events, seconds=1.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "chip"', 'kind = "wafer"', r"toy0\.toml: say kind"),
        ('kind = "chip"\n', "", r"toy0\.toml: say kind"),
        ("graded = true", "", "graded is missing"),
        ("graded = true", "graded = 1", "graded is 1; say true or false"),
        ("graded = true", 'graded = true\nprice = "low"', "price is none of"),
        ('evidence = "modelled"', 'evidence = "measured"', "'measured' is not one of estimated"),
        ('unknown = "nobody measured it"', "", r"toy0\.toml, row hop: low is missing"),
        ('unknown = "nobody measured it"', 'unknown = " "', "row hop: unknown is empty"),
        ("[rows.spike]", "[rows.sram]", "no row spike; give its figures, or unknown"),
        ("[rows.spike]", "[rows.spike]\nlowest = 1", "row spike: lowest is none of"),
        ('unit = "mW"', 'unit = "pJ"', "row static: unit 'pJ' is not one of mW, W"),
        ("[rows.static]", f"[rows.sram]\n{ABOUT}[rows.static]", "row sram: a chip has rows"),
    ],
)
def test_bad_chips_are_refused_by_file_and_key(toy, old, new, message):
    with pytest.raises(InputError, match=message):
        toy(old, new)
