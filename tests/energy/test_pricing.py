import copy
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from generator_runs import dense_counts, event_counts
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.core.meter import FIELDS, Counts
from axonal.energy import EVENT_STATE_BITS, PARTS, break_even, price, scale_events, tables

SHIPPED = tables.SHIPPED / "cmos45.toml"
COUNT = st.integers(0, 10**9)


@pytest.fixture
def dense():
    return dense_counts()


@pytest.fixture
def events():
    return event_counts()


@st.composite
def any_counts(draw):
    table = [[[draw(COUNT) for _ in FIELDS] for _ in range(2)] for _ in range(2)]
    return Counts(("a", "b"), np.array(table, float), draw(st.integers(1, 5)))


def test_price_by_hand(dense):
    # 2000 multiplies 0.2 pJ, 2000 adds 0.03 / 0.1 / 0.1 pJ; 8 of 64 bits of a 10 / 20 / 100 pJ
    # access for 2000 / 4 weights, 200 reads and 20 writes.
    parts = price(dense, bits=8, reuse=4).parts
    assert tuple(parts["multiplies"]) == pytest.approx((400e-12, 400e-12, 400e-12))
    assert tuple(parts["adds"]) == pytest.approx((60e-12, 200e-12, 200e-12))
    assert tuple(parts["weight_reads"]) == pytest.approx((625e-12, 1250e-12, 6250e-12))
    assert tuple(parts["state_reads"]) == pytest.approx((250e-12, 500e-12, 2500e-12))
    assert tuple(parts["state_writes"]) == pytest.approx((25e-12, 50e-12, 250e-12))
    assert tuple(price(dense, bits=8, reuse=4).total) == pytest.approx((1.36e-9, 2.4e-9, 9.6e-9))


def test_price_fp32_packs_two_words(dense):
    parts = price(dense, bits=32).parts
    assert parts["multiplies"].nominal == pytest.approx(2000 * 3.7e-12)
    assert parts["weight_reads"].nominal == pytest.approx(2000 * 10e-12)


def test_joules_never_stand_alone(dense):
    energy = price(dense)
    text = str(energy)
    assert energy.evidence == "modelled" and "modelled" in text
    assert "Horowitz" in text and "8 KiB" in text and "Left out: static" in text


@pytest.mark.parametrize("bits", [8, 16, 32])
@given(counts=any_counts(), factor=st.floats(0, 100))
def test_price_is_linear_and_ordered(counts, factor, bits):
    scaled = Counts(counts.layers, counts.table * factor, counts.samples)
    for part in PARTS:
        one, many = price(counts, bits=bits).parts[part], price(scaled, bits=bits).parts[part]
        assert tuple(many) == pytest.approx(tuple(value * factor for value in one))
        assert one.low <= one.nominal <= one.high


@given(counts=any_counts(), more=st.integers(0, 10**9), field=st.sampled_from(FIELDS))
def test_price_never_falls_with_more_work(counts, more, field):
    table = counts.table.copy()
    table[0, 1, FIELDS.index(field)] += more
    after = price(Counts(counts.layers, table, counts.samples)).total
    assert all(b >= a for a, b in zip(price(counts).total, after, strict=True))


@given(counts=any_counts(), reuse=st.floats(1, 1e6))
def test_reuse_touches_weights_alone(counts, reuse):
    once, often = price(counts).parts, price(counts, reuse=reuse).parts
    for part in PARTS:
        expected = once[part] * (1 / reuse if part == "weight_reads" else 1)
        assert tuple(often[part]) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("arguments", [{"bits": 4}, {"reuse": 0.5}, {"reuse": float("nan")}])
def test_price_refuses(dense, arguments):
    with pytest.raises(InputError):
        price(dense, **arguments)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("reuse", [1, 16])
def test_break_even_inverts_price(events, dense, bits, reuse):
    result = break_even(events, dense, bits=bits, reuse=reuse)
    assert result.share is not None and result.measured == pytest.approx(0.2)
    for scene, share in enumerate(result.share):
        assert share > 0
        scaled = scale_events(events, share / result.measured)
        cost = price(scaled, bits=bits, state_bits=EVENT_STATE_BITS[bits]).total
        other = price(dense, bits=bits, reuse=reuse).total
        assert tuple(cost)[scene] == pytest.approx(tuple(other)[scene])


def test_break_even_leaves_dense_layers_alone(events, dense):
    table = np.concatenate([events.table, dense.table], axis=1)
    hybrid = Counts((*events.layers, "shell"), table, 1)
    assert break_even(hybrid, dense).measured == pytest.approx(0.2)
    silent = scale_events(hybrid, 0).by_layer("synops")
    assert silent == {"delta.act": 0, "delta.conv": 0, "shell": 2000}


def test_break_even_says_who_wins(events, dense):
    assert break_even(events, dense).verdict.startswith("spiking pays: it sends 20.0%")
    assert break_even(scale_events(events, 4), dense, reuse=64).verdict.startswith("spiking loses")
    idle = Counts(dense.layers, dense.table * 1e-3, 1)
    assert "at any sparsity" in break_even(events, idle).verdict
    quiet = break_even(scale_events(events, 0), dense)
    assert quiet.share is None and quiet.verdict.startswith("unknown")


def test_scale_events_refuses(events):
    with pytest.raises(InputError):
        scale_events(events, -1)


def test_shipped_table_has_sources():
    table = tables.load()
    assert all(r.source and r.year == 2014 for r in table.costs.values())
    assert table["dram"].range.low == 1300 and table["sram"].si(8).high == 12.5e-12
    with pytest.raises(InputError, match="no row"):
        table["spike"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", None),
        ("source", "  "),
        ("low", -1.0),
        ("low", 5.0),
        ("nominal", "0.2"),
        ("high", float("nan")),
        ("high", True),
        ("unit", "W"),
        ("year", "2014"),
        ("evidence", "sure"),
    ],
)
def test_bad_rows_are_refused(tmp_path, key, value):
    values = copy.deepcopy(tomllib.loads(SHIPPED.read_text()))
    values["rows"]["multiply.8"][key] = value
    with pytest.raises(InputError, match=r"x\.toml, row multiply\.8"):
        tables.parse(values, "x.toml")


@pytest.mark.parametrize("key", ["kind", "title", "evidence", "scenarios", "omits", "rows"])
def test_bad_tables_are_refused(key):
    values = tomllib.loads(SHIPPED.read_text())
    with pytest.raises(InputError):
        tables.parse({k: v for k, v in values.items() if k != key}, "x.toml")
    with pytest.raises(InputError):
        tables.parse(values | {key: 3}, "x.toml")


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileError, match="cmos45"):
        tables.load("nothing")
    damaged = tmp_path / "damaged.toml"
    damaged.write_bytes(b"\xff = [")
    with pytest.raises(FileError):
        tables.load(str(damaged))


def test_energy_imports_no_torch():
    code = (
        "import sys, axonal.core.png, axonal.energy; "
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
