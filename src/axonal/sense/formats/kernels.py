"""Decoders of the words of a file into events.

Each is `decode(words, state, out) -> (used, count)`: it writes events into `out` until that is
full or the words end, and returns how many words it used and how many events it wrote. Its memory
from one call to the next is `state`, int64.
"""

import numba
import numpy as np

from .reading import NO_TIME

HIGH2, HIGH3 = 1 << 28, 1 << 12  # values of EVT2's and EVT3's upper bits of time
VECTOR = 12  # the most events of a word of EVT3

_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def evt2(words, state, out):
    """Prophesee's EVT 2.0: https://docs.prophesee.ai/stable/data/encoding_formats/evt2.html.

    state: the upper bits of time (-1 before the first), how often they wrapped.
    """
    (high, wraps), count, used = state, 0, len(words)
    for i in range(len(words)):
        word = words[i]
        kind = word >> 28
        if kind < 2:
            if count == len(out):
                used = i
                break
            low = np.int64((word >> 22) & 63)
            out[count].t = (wraps * HIGH2 + high) * 64 + low if high >= 0 else NO_TIME
            out[count].x = (word >> 11) & 2047
            out[count].y = word & 2047
            out[count].p = kind
            count += 1
        elif kind == 8:
            now = np.int64(word & (HIGH2 - 1))
            wraps += high - now > HIGH2 // 2
            high = now
    state[:] = high, wraps
    return used, count


@_compiled
def evt3(words, state, out):
    """Prophesee's EVT 3.0: https://docs.prophesee.ai/stable/data/encoding_formats/evt3.html.

    The time is the latest TIME_LOW joined to the latest TIME_HIGH, and a TIME_HIGH other than the
    one before begins at a TIME_LOW of 0. TIME_LOW may run backwards where it is that of another
    kind of event (a trigger); only the times of the events themselves have to be in order.
    TIME_HIGH wraps every 2^24 us.

    state: the upper bits of time (-1 before the first), wraps, the lower bits, y, x, polarity.
    """
    (high, wraps, low, y, x, p), count, used, room = state, 0, len(words), len(out) - VECTOR
    t = ((wraps * HIGH3 + high) << 12) + low if high >= 0 else NO_TIME
    for i in range(len(words)):
        word = np.int64(words[i])
        kind, value = word >> 12, word & 4095
        if count > room:
            used = i
            break
        # Written for any word, and overwritten unless it was an event: rows and columns alternate
        # at random, and a branch that can't be foretold costs more than what it saves.
        y = value & 2047 if kind == 0 else y
        out[count].t, out[count].x, out[count].y, out[count].p = t, value & 2047, y, value >> 11
        count += kind == 2
        if kind < 3:
            continue
        if kind == 4 or kind == 5:
            bits, at = value if kind == 4 else value & 255, x
            x = min(x + (VECTOR if kind == 4 else 8), 1 << 15)
            while bits:
                out[count].t, out[count].x, out[count].y, out[count].p = t, at, y, p
                count += bits & 1
                bits >>= 1
                at += 1
        elif kind == 3:
            x, p = value & 2047, value >> 11
        elif kind == 6:
            low = value
            t = ((wraps * HIGH3 + high) << 12) + low if high >= 0 else NO_TIME
        elif kind == 8 and value != high:
            wraps += high - value > HIGH3 // 2
            high, low = value, 0
            t = (wraps * HIGH3 + high) << 12
    state[:] = high, wraps, low, y, x, p
    return used, count


@_compiled
def atis(rows, state, out):
    """N-MNIST's 40 bits an event (Orchard et al. 2015, Front. Neurosci. 9:437): rows [N, 5].

    x, y, then the polarity and 23 bits of time; y = 240 marks 2^13 us that went by.

    state: the time that went by.
    """
    passed, count = state[0], 0
    for i in range(len(rows)):
        if rows[i, 1] == 240:
            passed += 1 << 13
            continue
        upper = np.int64(rows[i, 2])
        t = (upper & 127) << 16 | np.int64(rows[i, 3]) << 8 | np.int64(rows[i, 4])
        out[count].t = passed + t
        out[count].x = rows[i, 0]
        out[count].y = rows[i, 1]
        out[count].p = upper >> 7
        count += 1
    state[0] = passed
    return len(rows), count


@_compiled
def pairs(rows, state, out):
    """An address and a time of 32 bits that wraps: rows [N, 2]. DAT and AEDAT 2, see `camera_raw`.

    state: wraps, the time before, the column of the time, bits of what is no event; then of x, y
    and the polarity each where it begins in the address, how many bits it has, and the last one
    if they are counted from the other side, else -1.
    """
    wraps, before, column, skip, count = state[0], state[1], state[2], state[3], 0
    place = np.zeros(3, np.int64)
    for i in range(len(rows)):
        now, address = np.int64(rows[i, column]), np.int64(rows[i, 1 - column])
        if address & skip:
            continue
        wraps += before - now > 1 << 31
        before = now
        for k in range(3):
            begin, bits, last = state[4 + 3 * k], state[5 + 3 * k], state[6 + 3 * k]
            value = address >> begin & ((1 << bits) - 1)
            # From the other side; what is below 0 becomes, in 16 bits, outside of any camera.
            place[k] = value if last < 0 else last - value
        out[count].t = (wraps << 32) + now
        out[count].x, out[count].y, out[count].p = place[0], place[1], place[2]
        count += 1
    state[0], state[1] = wraps, before
    return len(rows), count


@_compiled
def event_stream(raw, state, out):
    """Event Stream 2.0, DVS and ATIS: https://github.com/neuromorphic-paris/event_stream.

    A byte with the time since the event before and `bits` flags (the polarity; of ATIS, also
    whether it is a measured exposure, which is left out), then x and y, from below. All ones in
    the time are no event, but so many microseconds times the flags.

    state: the time, bits, the last row.
    """
    (t, bits, last), at, count = state, 0, 0
    full = 255 >> bits
    while at < len(raw) and count < len(out):
        first = np.int64(raw[at])
        flags, step = first & ((1 << bits) - 1), first >> bits
        if step == full:
            t += full * flags
            at += 1
            continue
        if at + 5 > len(raw):
            break
        t += step
        if bits == 1 or not flags & 1:
            out[count].t = t
            out[count].x = np.int64(raw[at + 1]) | np.int64(raw[at + 2]) << 8
            out[count].y = last - (np.int64(raw[at + 3]) | np.int64(raw[at + 4]) << 8)
            out[count].p = flags >> (bits - 1)
            count += 1
        at += 5
    state[0] = t
    return at, count
