"""Readers against independent encoders; damage; writers."""

import gzip
import io
import struct
import tracemalloc
import wave
import zipfile
from datetime import UTC, datetime, timedelta

import dv_processing as dv
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.formats import FORMATS, open_file, tables
from axonal.sense.stream import EVENT, events, sample_type
from benchmarks.harness.recordings import save

SIDE = 34  # of the camera in every recording here


def drawn(count, longest=1500, seed=0):
    """Events in order, some at one time, some far apart."""
    rng = np.random.default_rng(seed)
    gap = rng.integers(0, longest, count) * (rng.random(count) < 0.6)
    x, y = rng.integers(0, SIDE, (2, count))
    return events(np.cumsum(gap) + 70, x, y, rng.integers(0, 2, count))


def evt2(packet):
    words, high = [], None
    for t, x, y, p in packet.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high % 2**28)
        words.append(p << 28 | t % 64 << 22 | x << 11 | y)
    head = f"% date 2024-01-01\n% evt 2.0\n% geometry {SIDE}x{SIDE}\n% end\n"
    return head.encode() + np.array(words, "<u4").tobytes()


def evt3(packet):
    words, high, low = [], None, None
    for t, x, y, p in packet.tolist():
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(8 << 12 | high % 4096)
        if t % 4096 != low:
            low = t % 4096
            words.append(6 << 12 | low)
        words += [y, 2 << 12 | p << 11 | x]
    head = f"% evt 3.0\n% format EVT3;height={SIDE};width={SIDE}\n"
    return head.encode() + np.array(words, "<u2").tobytes()


def nmnist(packet):
    rows = ((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255) for t, x, y, p in packet.tolist())
    return b"".join(map(bytes, rows))


def dat(packet):
    head = f"% Data file containing CD events\n% Width {SIDE}\n% Height {SIDE}\n".encode()
    rows = (struct.pack("<II", t % 2**32, p << 28 | y << 14 | x) for t, x, y, p in packet.tolist())
    return head + b"\x0c\x08" + b"".join(rows)


def aedat2(packet):
    head = b"#!AER-DAT2.0\r\n# AEChip: net.sf.jaer.Davis346blue\r\n# End Of ASCII Header\r\n"
    rows = (
        struct.pack(">II", (259 - y) << 22 | (345 - x) << 12 | p << 11, t % 2**32)
        + struct.pack(">II", 1 << 31, 0)  # of a frame
        for t, x, y, p in packet.tolist()
    )
    return head + b"".join(rows)


def dvs128(packet):
    head = b"#!AER-DAT2.0\r\n"
    rows = (
        struct.pack(">II", (127 - y) << 8 | x << 1 | p, t % 2**32) for t, x, y, p in packet.tolist()
    )
    return head + b"".join(rows)


def aedat3(packet):
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for i, (t, x, y, p) in enumerate(packet.tolist()):
        parts.append(struct.pack("<hhiiiiii", 2, 1, 16, 4, 0, 1, 1, 1) + bytes(16))
        parts.append(struct.pack("<hhiiiiii", 1, 1, 8, 4, t >> 31, 2, 2, 1))
        parts.append(struct.pack("<II", 0, i))  # not valid
        parts.append(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t % 2**31))
    return b"".join(parts)


def es(packet):
    out, last = bytearray(b"Event Stream\2\0\0\1" + struct.pack("<HH", SIDE, SIDE)), 0
    for t, x, y, p in packet.tolist():
        out += b"\xfe" + b"\xff" * ((t - last) // 127)
        out += struct.pack("<BHH", (t - last) % 127 << 1 | p, x, SIDE - 1 - y)
        last = t
    return bytes(out)


def es_atis(packet):
    out, last = bytearray(b"Event Stream\2\0\0\2" + struct.pack("<HH", SIDE, SIDE)), 0
    for t, x, y, p in packet.tolist():
        overflows = (t - last) // 63
        out += b"\xff" * (overflows // 3) + bytes([252 | overflows % 3])
        out += struct.pack("<BHH", (t - last) % 63 << 2 | p << 1, x, SIDE - 1 - y)
        out += struct.pack("<BHH", 0 << 2 | 1, 0, 0)  # half of a measured exposure
        last = t
    return bytes(out)


def npz(packet):
    file = io.BytesIO()
    names = {"ts": packet["t"], "x": packet["x"], "y": packet["y"].astype(float)}
    np.savez_compressed(file, **names, polarity=packet["p"] * 2.0 - 1, other=np.arange(3))
    return file.getvalue()


def dsec(packet):
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root["t_offset"] = np.int64(50)
        for name in "xyp":
            root.create_dataset(f"events/{name}", data=packet[name], chunks=True, compression=1)
        root.create_dataset("events/t", data=(packet["t"] - 50).astype(np.uint32), chunks=True)
    return file.getvalue()


def mvsec(packet):
    file = io.BytesIO()
    columns = [packet["x"], packet["y"], packet["t"] / 1e6, packet["p"] * 2.0 - 1]
    with h5py.File(file, "w") as root:
        root.create_dataset("davis/left/events", data=np.stack(columns, 1))
    return file.getvalue()


def csv(packet):
    rows = "".join(f"{x};{y};{t};{p}\n" for t, x, y, p in packet.tolist())
    return f"x;y;timestamp [us];polarity\n{rows}".encode()


ENCODERS = {
    "evt2": (evt2, "evt2", "a.raw"),
    "evt3": (evt3, "evt3", "a.raw"),
    "nmnist": (nmnist, "nmnist", "a.bin"),
    "dat": (dat, "dat", "a.dat"),
    "davis346": (aedat2, "aedat2", "a.aedat"),
    "dvs128": (dvs128, "aedat2", "a.aedat"),
    "aedat3": (aedat3, "aedat3", "a.aedat"),
    "es": (es, "es", "a.es"),
    "es atis": (es_atis, "es", "a.es"),
    "npz": (npz, "npz", "a.npz"),
    "dsec": (dsec, "hdf5", "a.h5"),
    "mvsec": (mvsec, "hdf5", "a.hdf5"),
    "csv": (csv, "csv", "a.csv"),
}
SIZES = {"davis346": (346, 260), "dvs128": (128, 128), "aedat3": (128, 128)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("formats")


def read(path, **options):
    packets = list(open_file(path, **options))
    return np.concatenate(packets) if packets else np.empty(0, EVENT)


def written(folder, name, packet):
    encode, _, file = ENCODERS[name]
    (folder / file).write_bytes(encode(packet))
    return folder / file


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=8)
@given(st.integers(0, 200), st.integers(0, 9), st.integers(16, 90), st.integers(0, 250))
def test_encoded_events_are_read_from_anywhere(name, folder, count, seed, most, at):
    packet = drawn(count + (ENCODERS[name][1] == "csv"), seed=seed)
    path = written(folder, name, packet)
    source = open_file(path, packet=most, size=SIZES.get(name, (SIDE, SIDE)))
    parts = list(source)
    assert all(0 < len(part) <= most for part in parts)
    np.testing.assert_array_equal(np.concatenate([np.empty(0, EVENT), *parts]), packet)
    assert (source.position, source.dropped, source.held) == (len(packet), 0, 0)
    source.seek(min(at, len(packet)))
    rest = np.concatenate([np.empty(0, EVENT), *source])
    np.testing.assert_array_equal(rest, packet[at:])
    source.close()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_source_goes_on_where_it_was_left(name, folder):
    packet = drawn(100)
    source = open_file(written(folder, name, packet), packet=16, size=SIZES.get(name, (SIDE, SIDE)))
    first = next(iter(source))
    assert source.position == len(first)
    second = next(iter(source))
    again = open_file(source.path, packet=16, size=(source.width, source.height))
    again.seek(source.position)
    rest = np.concatenate([first, second, *again])
    np.testing.assert_array_equal(rest, packet)
    source.close()
    again.seek(101)
    with pytest.raises(InputError, match="1 rows less"):
        list(again)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_format_is_recognised_by_content_or_else_by_name(name, folder):
    encode, form, file = ENCODERS[name]
    packet = drawn(50)
    (folder / file).write_bytes(encode(packet))
    content = FORMATS[form].recognise(encode(packet)[: 1 << 20])
    assert content or file.endswith(FORMATS[form].suffixes)
    others = [n for n, f in FORMATS.items() if n != form and f.recognise(encode(packet))]
    assert others == []


def test_an_unknown_format_is_refused_with_a_list(folder):
    (folder / "what").write_bytes(b"hello")
    with pytest.raises(InputError, match="evt2, evt3, dat"):
        open_file(folder / "what")
    with pytest.raises(FileError, match="nowhere"):
        open_file(folder / "nowhere")
    with pytest.raises(InputError, match="'pocket'"):
        open_file(folder / "what", pocket=3)
    for wrong in ({"packet": 3}, {"size": (0, 5)}, {"size": (5,)}, {"unit": "h"}, {"rate": 0.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            open_file(folder / "what", **wrong)


def test_evt3_joins_times_as_its_document_says_and_spreads_vectors(folder):
    words = [
        *(2 << 12 | 5,),  # before any time: has none
        *(8 << 12 | 4095, 6 << 12 | 4000, 7, 2 << 12 | 1 << 11 | 30),
        # The low bits of a trigger come between, and no event has them.
        *(6 << 12 | 4011, 10 << 12 | 1, 6 << 12 | 4001, 2 << 12 | 31),
        *(3 << 12 | 1 << 11 | 3, 4 << 12 | 0b100000000001, 5 << 12 | 0b10000001),
        *(8 << 12 | 4095, 2 << 12 | 1),  # the same again changes nothing
        *(8 << 12 | 0, 2 << 12 | 2, 6 << 12 | 9, 9, 2 << 12 | 3),  # wraps
    ]
    (folder / "a.raw").write_bytes(np.array(words, "<u2").tobytes())
    source = open_file(folder / "a.raw", "evt3", size=(SIDE, SIDE), strict=False)
    packet = np.concatenate(list(source))
    end, wrap = 4095 << 12, 1 << 24
    t = [end + 4000, *[end + 4001] * 6, wrap, wrap + 9]
    x = [30, 31, 3, 14, 15, 22, 1, 2, 3]
    expected = events(t, x, [7] * 8 + [9], [1, 0, 1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(packet, expected)
    assert source.dropped == 1
    with pytest.raises(FileError, match=r"a\.raw, byte 0: no time"):
        read(folder / "a.raw", format="evt3", size=(SIDE, SIDE))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("evt2", [2**33 - 64] * 5),
        ("evt3", [2**23 - 4096] * 5),
        ("dat", [2**31 - 1] * 5),
        ("davis346", [2**31 - 1] * 5),
        ("aedat3", [2**31 - 71, 1, 2**40]),
        ("es", [2**16] * 2),
    ],
)
def test_times_that_wrap_go_on(name, steps, folder):
    t = 70 + np.cumsum([0, *steps])
    packet = events(t, t * 0 + 3, t * 0 + 4, t * 0 + 1)
    path = written(folder, name, packet)
    np.testing.assert_array_equal(read(path, size=SIZES.get(name, (SIDE, SIDE))), packet)


def test_40_bits_count_what_overflowed(folder):
    rows = [(1, 2, 0, 0, 5), (0, 240, 0, 0, 0), (0, 240, 9, 9, 9), (3, 4, 128, 0, 6)]
    (folder / "a.bin").write_bytes(bytes(np.ravel(rows).tolist()))
    packet = read(folder / "a.bin", packet=16)
    np.testing.assert_array_equal(packet, events([5, 2 * 8192 + 6], [1, 3], [2, 4], [0, 1]))


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ("% evt 2.0\n% plugin_name hal_plugin_gen3_fx3\n", (640, 480)),
        ("% evt 2.0\n% plugin_name hal_plugin_imx636_evk4\n", (1280, 720)),
        ("% format EVT2;height=320;width=321\n", (321, 320)),
        ("% evt 2.0\n% geometry 12x34\n", (12, 34)),
    ],
)
def test_the_size_of_a_camera_is_read_from_the_header(head, size, folder):
    (folder / "a.raw").write_text(head)
    source = open_file(folder / "a.raw")
    assert (source.width, source.height) == size and list(source) == []


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"% evt 2.0\n", InputError, "pass size="),
        (b"% evt 2.0\n% geometry 99999x99999\n", FileError, "99999 x 99999"),
        (b"% evt 2.0\n% endianness big\n", FileError, "little-endian"),
        (b"% evt 2.1\n", InputError, "pass format="),
        (b"% Data file containing CD events\n\x0e\x08", FileError, "byte 33"),
        (b"#!AER-DAT3.1\r\n#Format: LZ\r\n", FileError, "only RAW"),
        (b"Event Stream\2\0\0\0" + bytes(9), FileError, "other events"),
        (b"RIFF    WAVE", FileError, "can't read"),
        (b"PK\3\4", FileError, "can't read"),
        (b"\x89HDF\r\n\x1a\n", FileError, "can't read"),
        (b"#!AER-DAT4.0\r\n", FileError, "ends with .aedat4"),
        (b"", FileError, "is empty"),
    ],
)
def test_gaps_and_unknowns_in_a_header_are_named(content, error, message, folder):
    (folder / "a.xyz").write_bytes(content)
    with pytest.raises(error, match=message):
        open_file(folder / "a.xyz")


def test_a_header_may_end_its_lines_otherwise_and_lack_the_size(folder):
    packet = drawn(200)
    content = evt2(packet).replace(f"% geometry {SIDE}x{SIDE}\n".encode(), b"")
    head, _, words = content.partition(b"% end\n")
    (folder / "a.raw").write_bytes(head.replace(b"\n", b"\r\n") + b"% end\r\n" + words)
    source = open_file(folder / "a.raw")
    assert (source.width, source.height) == (128, 128)
    assert source.notes == ["size: 128 x 128, of the least camera that has all its events"]
    np.testing.assert_array_equal(np.concatenate(list(source)), packet)


def ordered(packet, last, width, height):
    assert len(packet) and packet["t"][0] >= last and (np.diff(packet["t"]) >= 0).all()
    if packet.dtype == EVENT:
        inside = (packet["x"] < width) & (packet["y"] < height) & (packet["p"] <= 1)
        assert inside.all()
    else:
        assert packet.dtype == sample_type(width) and np.isfinite(packet["value"]).all()
    return packet["t"][-1]


def sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 8000, 0, "NONE", ""))
        out.writeframes(np.arange(-600, 600, dtype="<i2").tobytes())
    return file.getvalue()


WAVES = {  # form, bits, extensible
    "24 bits, extensible": (1, 24, True),
    "16 bits, extensible": (1, 16, True),
    "floats": (3, 32, False),
    "doubles, extensible": (3, 64, True),
}


def wave_of(values, form, bits, extensible, announced=None):
    """A wav of values [N, C] in [-1, 1), written by hand, with a chunk that nobody knows."""
    channels, size = values.shape[1], bits // 8
    body = values.astype(f"<f{size}").tobytes() if size > 3 else bytes(values.size * size)
    if form == 1:
        whole = np.round(values * 2 ** (bits - 1)).astype(np.int64)
        body = b"".join(int(v).to_bytes(size, "little", signed=True) for v in whole.flat)
    shape = (channels, 8000, 8000 * channels * size, channels * size, bits)
    about = struct.pack("<HHIIHH", 0xFFFE if extensible else form, *shape)
    if extensible:
        about += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", form) + bytes(14)
    length = len(body) if announced is None else announced
    chunks = b"fmt " + struct.pack("<I", len(about)) + about + b"LIST\3\0\0\0abc\0"
    return b"RIFF\xff\xff\xff\xffWAVE" + chunks + b"data" + struct.pack("<I", length) + body


@pytest.mark.parametrize("name", WAVES)
@pytest.mark.parametrize("announced", [None, 0, 0xFFFFFFFF])
def test_sound_in_other_forms_and_from_pipes(name, announced, folder):
    values = np.arange(-600, 600).reshape(-1, 2) / 1024
    (folder / "a.wav").write_bytes(wave_of(values, *WAVES[name], announced))
    source = open_file(folder / "a.wav", packet=64)
    packet = np.concatenate(list(source))
    np.testing.assert_array_equal(packet["value"], values.astype(np.float32))
    np.testing.assert_array_equal(packet["t"], np.arange(600) * 125)
    assert source.rate == 8000 and source.dropped == 0


def test_sound_that_is_not_read_says_what_is(folder):
    (folder / "a.wav").write_bytes(wave_of(np.zeros((4, 1)), 7, 8, False))
    with pytest.raises(FileError, match=r"form 7; numbers of 8, 16, 24 or 32 bits are read"):
        open_file(folder / "a.wav")
    (folder / "a.wav").write_bytes(sound()[:40])
    with pytest.raises(FileError, match="it has no form and data"):
        open_file(folder / "a.wav")
    (folder / "a.wav").write_bytes(sound())
    with pytest.raises(InputError, match="it has 8000 samples a second, and rate says 16000"):
        open_file(folder / "a.wav", rate=16000.0)


def test_data_that_look_like_a_header_are_none(folder):
    packet = events([5, 6, 7], [48, 1, 2], [92, 3, 4], [1, 0, 1])
    words = b"#\x01\x0a\x00\0\0\0\x05" + dvs128(packet)[-16:]
    (folder / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n# a line\r\n" + words)
    rows = np.concatenate(list(open_file(folder / "a.aedat", strict=False, size=(128, 128))))
    assert len(rows) == 3 and rows["t"].tolist() == [5, 6, 7]


def idx():
    return b"\0\0\x08\3" + struct.pack(">III", 40, 2, 3) + bytes(range(240))


UNDAMAGED = {name: (encode(drawn(90)), form) for name, (encode, form, _) in ENCODERS.items()} | {
    "wav": (sound(), "wav"),
    "idx": (idx(), "idx"),
    "idx.gz": (gzip.compress(idx()), "idx"),
    "samples": (b"time_s,a,b\n" + b"".join(b"%d.5,%d,-2\n" % (i, i) for i in range(40)), "csv"),
}
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("head"), st.floats(0, 0.1), st.integers(0, 255)),
        st.tuples(st.just("swap"), st.floats(0, 1), st.integers(1, 40)),
        st.tuples(st.just("vast"), st.floats(0, 1), st.sampled_from([0, 127, 128, 255])),
    ),
    max_size=4,
)


def damaged(content, damage):
    raw = bytearray(content)
    for kind, share, value in damage:
        at = int(share * len(raw))
        if kind == "cut":
            del raw[at:]
        elif kind == "swap":
            raw[at : at + 2 * value] = raw[at + value : at + 2 * value] + raw[at : at + value]
        elif kind == "vast":
            raw[at : at + 8] = bytes([value] * 8)
        elif at < len(raw):
            raw[at] ^= value
    return bytes(raw)


@pytest.mark.parametrize("name", UNDAMAGED)
@settings(max_examples=40)
@given(DAMAGE, st.booleans())
def test_damage_gives_packets_in_bounds_or_an_error_that_names_the_file(
    name, folder, damage, strict
):
    content, form = UNDAMAGED[name]
    (folder / "fuzz").write_bytes(damaged(content, damage))
    options = {"strict": strict, "packet": 16}
    options |= {"idx": {"rate": 30.0}, "npz": {"unit": "us"}}.get(form or "", {})
    last, message = np.iinfo(np.int64).min, "fuzz"
    try:
        source = open_file(folder / "fuzz", form, size=SIZES.get(name, (SIDE, SIDE)), **options)
        for packet in source:
            last = ordered(packet, last, source.width, source.height)
    except (FileError, InputError) as error:
        message = str(error)
    assert "fuzz" in message


@pytest.mark.parametrize(
    ("name", "unit", "size"),
    [
        ("evt2", "byte", 4),
        ("evt3", "byte", 2),
        ("nmnist", "byte", 5),
        ("dat", "byte", 8),
        ("aedat3", "byte", 8),
        ("npz", "row", 0),
        ("dsec", "row", 0),
        ("mvsec", "row", 0),
        ("csv", "line", 0),
    ],
)
def test_time_that_runs_backwards_is_refused_with_its_place_or_held(name, unit, size, folder):
    packet = drawn(40, longest=60)
    packet["t"][20:] -= packet["t"][20] - packet["t"][19] + 1
    held = np.maximum.accumulate(packet["t"])
    path, size_of = written(folder, name, packet), {"size": SIZES.get(name, (SIDE, SIDE))}
    source = open_file(path, strict=False, **size_of)
    np.testing.assert_array_equal(np.concatenate(list(source))["t"], held)
    assert source.held == np.count_nonzero(held != packet["t"]) > 0 and source.dropped == 0
    before = len(ENCODERS[name][0](packet[:21])) - size
    where = {"byte": before, "row": 20, "line": 22}[unit]
    with pytest.raises(FileError, match=rf"{path.name}, {unit} {where}: time runs backwards"):
        read(path, **size_of)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in SIZES])
def test_events_outside_of_the_camera_are_refused_or_counted(name, folder):
    packet = drawn(40)
    packet["x"][7] = 33
    packet["x"][:7] %= 33
    packet["x"][8:] %= 33
    path = written(folder, name, packet)
    with pytest.raises(FileError, match=r"an event at 33, .* of a camera of 33 x 34"):
        read(path, size=(33, SIDE))
    source = open_file(path, size=(33, SIDE), strict=False)
    np.testing.assert_array_equal(np.concatenate(list(source)), np.delete(packet, 7))
    assert source.dropped == 1


@pytest.mark.parametrize("name", ["evt2", "evt3", "nmnist", "dat", "dvs128", "aedat3", "es", "csv"])
def test_an_end_within_an_event_is_refused_or_counted(name, folder):
    packet, file = drawn(30), ENCODERS[name][2]
    content = ENCODERS[name][0](packet)[:-1]
    content = content[:-1] if name == "csv" else content
    (folder / file).write_bytes(content)
    options = {"size": SIZES.get(name, (SIDE, SIDE))}
    with pytest.raises(FileError, match=rf"{file}, (byte|line) \d+"):
        read(folder / file, **options)
    source = open_file(folder / file, strict=False, **options)
    np.testing.assert_array_equal(np.concatenate(list(source)), packet[:-1])
    assert source.dropped == 1


def test_sound_becomes_samples(folder):
    values = np.arange(-600, 600, dtype="<i2").reshape(-1, 2)
    for width in (1, 2, 3, 4):
        with wave.open(str(folder / "a.wav"), "wb") as out:
            out.setparams((2, width, 8000, 0, "NONE", ""))
            wide = (values.astype(np.int64) << 8 * (width - 2)) if width > 1 else values // 8 + 128
            out.writeframes(
                b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in wide.flat)
            )
        source = open_file(folder / "a.wav", packet=64)
        packet = np.concatenate(list(source))
        assert (source.width, source.height, packet.dtype) == (2, 1, sample_type(2))
        np.testing.assert_array_equal(packet["t"], np.arange(600) * 125)
        scale = 1 / 128 * (values // 8) if width == 1 else values / 32768
        np.testing.assert_allclose(packet["value"], scale, atol=1e-7)
    (folder / "a.wav").write_bytes(sound()[:-8])
    with pytest.raises(FileError, match="frame 598: the end, of 600"):
        list(open_file(folder / "a.wav"))
    source = open_file(folder / "a.wav", strict=False)
    assert sum(map(len, source)) == 598 and source.dropped == 2


def test_a_table_of_records_becomes_samples_at_a_rate(folder):
    for content in (idx(), gzip.compress(idx())):
        (folder / "x-idx3-ubyte").write_bytes(content)
        with pytest.raises(InputError, match="pass rate="):
            open_file(folder / "x-idx3-ubyte")
        source = open_file(folder / "x-idx3-ubyte", rate=4, packet=16)
        packet = np.concatenate(list(source))
        assert (source.width, source.height) == (6, 1)
        np.testing.assert_array_equal(packet["t"], np.arange(40) * 250_000)
        np.testing.assert_array_equal(packet["value"], np.arange(240).reshape(40, 6))
    (folder / "x-idx3-ubyte").write_bytes(idx()[:-7])
    with pytest.raises(FileError, match="row 38: the end, of 40"):
        list(open_file(folder / "x-idx3-ubyte", rate=4))
    source = open_file(folder / "x-idx3-ubyte", rate=4, strict=False)
    assert sum(map(len, source)) == 38 and source.dropped == 2


START = datetime(2024, 2, 28, 23, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "times", "options"),
    [
        ("timestamp,a,b", [(START + timedelta(seconds=i)).isoformat() for i in range(3)], {}),
        (
            "n,Time,a,b",
            [f"{START + timedelta(seconds=i):%Y-%m-%d %H:%M:%S}" for i in range(3)],
            {},
        ),
        ("t_s,a,b", [f"{START.timestamp() + i:.1f}" for i in range(3)], {}),
        ("time [ms],a,b", [int(START.timestamp() + i) * 1000 for i in range(3)], {}),
        ("ts,a,b", [int(START.timestamp() + i) * 10**9 for i in range(3)], {"unit": "ns"}),
    ],
)
def test_text_becomes_samples_at_the_times_it_states(header, times, options, folder):
    first = "note," if header.startswith("n,") else ""
    rows = "".join(f"{first}{t},{i},{i / 2}\n" for i, t in enumerate(times))
    (folder / "a.csv").write_text(f"\ufeff{header}\n\n{rows}", encoding="utf-8")
    packet = read(folder / "a.csv", **options)
    assert packet["t"].tolist() == [int(START.timestamp() + i) * 10**6 for i in range(3)]
    assert packet["value"].tolist() == [[i, i / 2] for i in range(3)]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("t,a\n1,2\n", InputError, "pass unit="),
        ("a,b\n1,2\n", InputError, r"no column of times .* among a, b; pass time="),
        ("1,2\n3,4\n", InputError, "no column of times .* or rate= in rows a second"),
        ("t_s,a\n1,x\n", FileError, r"0 columns of numbers, not 1 to 1024: a \(text\)"),
        ("t_s,a\n1,2\n2\n", FileError, "line 3: 1 cells, not 2"),
        ("t_s,a\n1,2\n1e300,2\n", FileError, "line 3: a number"),
        ("t_s,a\n2,2\n\n1,2\n", FileError, "line 4: time runs backwards, from 2000000 to 1000000"),
        ("t_s,a\n1," + "2" * 70_000, FileError, "line 2 has more than 65536"),
        ("t_s,x,y,p\n1,2,3,1\n", InputError, "pass size="),
    ],
)
def test_text_that_is_no_table_is_refused_with_its_line(content, error, message, folder):
    (folder / "a.csv").write_text(content)
    with pytest.raises(error, match=message):
        list(open_file(folder / "a.csv"))


@pytest.mark.parametrize(
    ("content", "values", "missing", "left"),
    [
        ("t_s,a,b\n1,,2\n2,5,3\n", [[5, 2], [5, 3]], 1, ""),
        ("t_s,a,b\n1,1,NULL\n2,nan,inf\n3,3,7\n", [[1, 7], [1, 7], [3, 7]], 3, ""),
        ("t_s,a\n1,unavailable\n2,4.5\n", [[4.5], [4.5]], 1, ""),
        ("t_s,load,up\n1,5%,false\n2,7 %,True\n", [[5, 0], [7, 1]], 0, ""),
        ("t_s;a;b\n1;21,5;-1\n2;,5;1,25\n", [[21.5, -1], [0.5, 1.25]], 0, ""),
        (
            "timestamp,value,time_ms\n2020-01-01,3,7\n2020-01-02,4,8\n",
            [[3], [4]],
            0,
            "time_ms (another time)",
        ),
        (
            "t_s,a,is_anomaly,room\n1,2,0,x\n2,3,1,y\n",
            [[2], [3]],
            0,
            "is_anomaly (labels); room (text)",
        ),
        ("t_s,a,b\n1,2,\n2,3,\n", [[2], [3]], 0, "b (no value in the first 2 rows)"),
    ],
)
def test_cells_and_columns_are_what_they_say(content, values, missing, left, folder):
    (folder / "a.csv").write_text(content)
    source = open_file(folder / "a.csv")
    assert np.concatenate(list(source))["value"].tolist() == values
    assert source.missing == missing and source.dropped == 0
    assert ("left out: " + left in source.notes) if left else len(source.notes) == 2


def test_columns_and_the_time_can_be_chosen(folder):
    (folder / "a.csv").write_text("when,ts_ms,a,label\n2020-01-01,1000,2,0\n2020-01-02,2000,3,1\n")
    source = open_file(folder / "a.csv", columns=("label", "a"), time="ts_ms")
    packet = next(iter(source))
    assert packet["value"].tolist() == [[0, 2], [1, 3]] and packet["t"].tolist() == [
        10**6,
        2 * 10**6,
    ]
    assert source.notes == ["times: ts_ms", "columns: label, a", "left out: when (text)"]
    for options, message in [
        ({"columns": ("b",)}, "no 'b'; there are when"),
        ({"columns": ("when",)}, "'when' is left out: text"),
        ({"time": "b"}, "time: there is no 'b'"),
        ({"unit": "s"}, "the header states times in ms, and unit says 's'"),
        ({"rate": 3.0}, "it has times in 'ts_ms'; leave out rate"),
    ]:
        with pytest.raises(InputError, match=message):
            open_file(folder / "a.csv", **options)


@pytest.mark.parametrize(
    "times",
    [
        ["2014/11/09 07:00", "2014/11/09 08:00"],
        ["09.11.2014 07:00:00", "09.11.2014 8:00:00"],
        ["13/11/2014 07:00", "13/11/2014 08:00"],
        ["2014-11-09,07:00", "2014-11-09,08:00"],
        ["1415516400", "1415520000"],
        ["1415516400000", "1415520000000"],
        ["1415516400000000", "1415520000000000"],
    ],
)
def test_times_as_people_write_them(times, folder):
    head = "Date,Time,a" if "," in times[0] else "timestamp,a"
    (folder / "a.csv").write_text(f"{head}\n{times[0]},1\n{times[1]},2\n")
    packet = next(iter(open_file(folder / "a.csv")))
    day = 13 if times[0].startswith("13") else 9
    first = datetime(2014, 11, day, 7, tzinfo=UTC).timestamp() * 1e6
    assert packet["t"].tolist() == [first, first + 3600e6] and packet["value"].shape == (2, 1)


def test_days_and_months_are_not_guessed(folder):
    (folder / "a.csv").write_text("timestamp,a\n01/02/2014,1\n02/02/2014,2\n")
    with pytest.raises(InputError, match="may be of two months"):
        open_file(folder / "a.csv")


def test_rows_without_times_have_a_rate(folder):
    (folder / "a.txt").write_text("1.5\n2.5\n\n-3\n")
    with pytest.raises(InputError, match="rate= in rows a second"):
        open_file(folder / "a.txt")
    packet = next(iter(open_file(folder / "a.txt", rate=4.0)))
    assert packet["t"].tolist() == [0, 250_000, 500_000]
    assert packet["value"].tolist() == [[1.5], [2.5], [-3]]
    (folder / "empty.csv").write_text("\n")
    with pytest.raises(FileError, match="is empty"):
        open_file(folder / "empty.csv")


def test_an_npz_of_telemetry_needs_times_or_a_rate(folder):
    values = np.arange(40.0).reshape(20, 2)
    for arrays in ({"arr_0": values}, {"value": values}):
        np.savez(folder / "a.npz", **arrays)
        with pytest.raises(InputError, match="values without times; save t too, or pass rate="):
            open_file(folder / "a.npz")
        packet = read(folder / "a.npz", rate=4.0, packet=16)
        assert packet["t"].tolist() == [250_000 * i for i in range(20)]
        np.testing.assert_array_equal(packet["value"], values)
    np.savez(folder / "a.npz", temp=values, hum=values)
    with pytest.raises(InputError, match=r"it has temp, hum; save t and value"):
        open_file(folder / "a.npz")


def test_rows_of_an_npz_may_lie_in_one_array_and_need_a_unit_if_not_integers(folder):
    packet = drawn(50)
    np.savez(folder / "a.npz", packet)
    np.testing.assert_array_equal(read(folder / "a.npz", size=(SIDE, SIDE)), packet)
    np.savez(folder / "a.npz", **{name: packet[name] for name in "xyp"}, t=packet["t"] / 1e3)
    with pytest.raises(InputError, match="pass unit="):
        read(folder / "a.npz", size=(SIDE, SIDE))
    np.testing.assert_array_equal(read(folder / "a.npz", size=(SIDE, SIDE), unit="ms"), packet)
    for wrong in ({"t": packet["t"]}, {"t": [object()] * 3}, {"t": [[1]], "value": [1, 2]}):
        np.savez(folder / "a.npz", **{k: np.array(v) for k, v in wrong.items()})
        with pytest.raises(FileError, match=r"a\.npz"):
            read(folder / "a.npz", size=(SIDE, SIDE))


def header_of(shape):
    file = io.BytesIO()
    head = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def absurd_npz(shape, size):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "txyp":
            archive.writestr(f"{name}.npy", header_of(shape) + bytes(size))
    return file.getvalue()


def absurd_hdf5(shape, **options):
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for name in "txyp":
            root.create_dataset(f"events/{name}", shape, np.int64, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        absurd_npz((2**60,), 80),
        absurd_npz((4, 2**50), 80),
        absurd_hdf5((2**50,), chunks=(2**16,)),
        absurd_hdf5((2**30,), chunks=(2**28,), compression=1),
        absurd_hdf5((5,), external=[("/etc/passwd", 0, 40)]),
        b"\0\0\x08\3" + struct.pack(">III", 2**32 - 1, 1, 1),
        b"\0\0\x08\3" + struct.pack(">III", 1, 2**32 - 1, 2**32 - 1),
        gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 2**32 - 1) + bytes(100)),
        b"#!AER-DAT3.1\r\n" + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 0),
        b"#!AER-DAT3.1\r\n" + struct.pack("<hhiiiiii", 1, 1, 0, 4, 0, 1, 1, 0),
        b"#!AER-DAT3.1\r\n" + struct.pack("<hhiiiiii", 2, 1, -9, 4, 0, 1, 1, 0),
        sound()[:22] + b"\xff\xff" + sound()[24:],
        sound()[:40] + b"\xff\xff\xff\x7f" + sound()[44:],
    ],
)
def test_absurd_sizes_in_headers_cost_no_memory(content, folder):
    (folder / "absurd").write_bytes(content)
    tracemalloc.start()
    try:
        rate = {} if content.startswith(b"RIFF") else {"rate": 1}
        with pytest.raises(FileError, match="absurd"):
            list(open_file(folder / "absurd", size=(SIDE, SIDE), **rate))
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(folder):
    path = save(folder / "long.raw", [drawn(500_000)], SIDE, SIDE)
    list(open_file(path, packet=4096))  # compiled
    tracemalloc.start()
    for packet in open_file(path, packet=4096):
        assert len(packet) <= 4096
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # and 500,000 events are 8e6


@settings(max_examples=25)
@given(
    st.integers(0, 300), st.integers(0, 99), st.integers(1, 2**33), st.lists(st.integers(0, 300))
)
def test_written_files_read_back_equal(folder, count, seed, longest, cuts):
    packet = drawn(count, longest, seed)
    parts = np.split(packet, sorted(cuts))
    for name in ("b.raw", "b.npz"):
        source = open_file(save(folder / name, iter(parts), SIDE, SIDE))
        assert (source.width, source.height) == (SIDE, SIDE)
        if count or name == "b.raw":
            np.testing.assert_array_equal(np.concatenate([np.empty(0, EVENT), *source]), packet)


def test_samples_are_written_as_npz(folder):
    packet = np.zeros(100, sample_type(3))
    packet["t"], packet["value"] = np.arange(100) * 7, np.arange(300).reshape(-1, 3)
    source = open_file(save(folder / "s.npz", np.split(packet, 4), 3, 1), packet=16)
    assert (source.width, source.height) == (3, 1)
    np.testing.assert_array_equal(np.concatenate(list(source)), packet)
    with pytest.raises(InputError, match="can't hold"):
        save(folder / "s.raw", [packet], 3, 1)


@pytest.mark.parametrize("suffix", [".raw", ".npz"])
def test_writers_refuse_what_would_not_read_back(suffix, folder):
    path, good = folder / f"no{suffix}", events([5, 6], [0, 1], [0, 1], [0, 1])
    for wrong in (
        [events([5, 4], [0, 1], [0, 1], [0, 1])],
        [good, good],
        [events([5, 6], [0, 2], [0, 1], [0, 1])],
        [events([5, 6], [0, 1], [0, 1], [0, 2])],
        [good, np.zeros(2, sample_type(1))],
    ):
        with pytest.raises(InputError, match="save"):
            save(path, wrong, 2, 2)
    if suffix == ".raw":
        for t in ([-1], [2**34], [0, 2**33]):
            with pytest.raises(InputError, match="can't hold"):
                save(path, [events(t, [0] * len(t), [0] * len(t), [0] * len(t))], 2, 2)
        with pytest.raises(InputError, match="can't hold"):
            save(path, [good], 2049, 2)
    with pytest.raises(InputError, match="none of"):
        save(folder / "no.txt", [good], 2, 2)
    assert not path.exists() and not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_aedat4_is_read_by_a_process_that_may_die_or_fall_silent(folder, monkeypatch):
    packet, path = drawn(3000), folder / "a.aedat4"
    config = dv.io.MonoCameraWriter.EventOnlyConfig("DVXplorer", (SIDE, SIDE))
    writer, store = dv.io.MonoCameraWriter(str(path), config), dv.EventStore()
    for t, x, y, p in packet.tolist():
        store.push_back(t, x, y, bool(p))
    writer.writeEvents(store)
    del writer
    source = open_file(path, packet=1000)
    assert (source.width, source.height) == (SIDE, SIDE)
    np.testing.assert_array_equal(np.concatenate(list(source)), packet)
    source.seek(2990)
    assert len(next(iter(source))) == 10
    source.close()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileError, match=r"a\.aedat4: dv-processing can't read it"):
        open_file(path)
    monkeypatch.setattr(tables, "SILENCE", 0.0)
    with pytest.raises(FileError, match="said nothing"):
        open_file(path)
