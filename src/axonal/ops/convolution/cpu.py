"""Convolutions by events on CPUs: each thread takes samples, channels last, through its cache.

An event is a value that is not zero, of the input x or of the gradient g that reaches the output:

    gather    y[p] = sum over taps of x[p + tap] weight[tap]       by events of x
    scatter   x'[p + tap] += g[p] weight[tap]                      by events of g
    outer     weight'[tap] = sum over places p of g[p] x[p + tap]  by events of g

g is mostly zero behind a maximum. (`outer` by events of x was no faster than torch at a share of
0.13.) What an event is multiplied by lies side by side, taps of a row of the kernel together;
sums stay in registers while events pass (see `simd`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ..simd import emit, nonzero, weigh
from ..threads import run_in_parts

LANES = 16  # float32 in a vector: rows of taps are padded to whole ones
PARTS = 16  # of the samples, each with its own sums: equal results on any number of threads
GROUP = 4  # samples whose events are sorted by channel at once
LOOKED_AT = 64  # samples that tell how many events there are
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "cache": True}
ONE = np.float32(1)
FINITE = 0x7F7FFFFF  # the bits of the largest float32


@njit(**OPTIONS)
def _count(x, step):
    total = 0
    for s in range(0, len(x), step):
        total += nonzero(x[s], x.shape[1])
    return total


@njit(**OPTIONS)
def _padded(row, shape, pad, to, at):
    """Copy a sample [H, W, C] into `to`, which is zero, from `at` on, with space around it."""
    height, width, channels = shape
    length = width * channels
    for y in range(height):
        line = at + ((y + pad[0]) * (width + 2 * pad[1]) + pad[1]) * channels
        for n in range(length):
            to[line + n] = row[y * length + n]


@njit(**OPTIONS)
def _cropped(row, shape, pad, to):
    """Copy a sample back out of the space around it: the reverse of `_padded`."""
    height, width, channels = shape
    length = width * channels
    for y in range(height):
        line = ((y + pad[0]) * (width + 2 * pad[1]) + pad[1]) * channels
        for n in range(length):
            row[y * length + n] = to[line + n]


@njit(**OPTIONS)
def _worst(values, size):
    """The largest bits of the magnitudes: above `FINITE` with an infinity or NaN among them."""
    worst = np.uint32(0)
    bits = values.view(np.uint32)
    for n in range(size):
        worst = max(worst, bits[n] & np.uint32(0x7FFFFFFF))
    return worst


@njit(**OPTIONS)
def _listed(values, places, events, begins):
    """List all events, and where those of each place begin; `places` has that of each value."""
    total = emit(values, len(values), 0, 0, events)
    begins[:] = 0
    for e in range(total):
        begins[places[events[0][e]] + 1] += 1
    for place in range(len(begins) - 1):
        begins[place + 1] += begins[place]


@njit(**OPTIONS)
def _band(events, begins, shape, kernel, left, band, starts):
    """The events of the columns from `left` that a kernel covers, row by row of the sample.

    idx counts from the first of these columns; row y begins at starts[y].
    """
    (idx, val), (to_idx, to_val) = events, band
    height, width, channels = shape
    at = 0
    for y in range(height):
        starts[y] = at
        place = y * width + left
        begin, end = begins[place], begins[place + kernel[1]]
        shift = (y * kernel[1] - place) * channels
        for chunk in range(0, end - begin, LANES):  # whole vectors: there is room behind
            for n in range(chunk, chunk + LANES):
                to_idx[at + n] = idx[begin + n] + shift
                to_val[at + n] = val[begin + n]
        at += end - begin
    starts[height] = at


@njit(**OPTIONS)
def gather(first, last, x, shape, pad, kernel, taps, bias, out):
    """The convolution of samples x [N, H W C] with taps [rows, columns, C, O] and bias [O]."""
    outputs, channels = len(bias), shape[2]
    height, width = shape[0] + 2 * pad[0], shape[1] + 2 * pad[1]
    rows, columns = height - kernel[0] + 1, width - kernel[1] + 1
    inner = np.zeros(height * width * channels, np.float32)
    places = np.arange(len(inner)) // channels
    begins, starts = np.empty(height * width + 1, np.int64), np.empty(height + 1, np.int64)
    events = np.empty(len(inner) + LANES, np.int64), np.empty(len(inner) + LANES, np.float32)
    room = height * kernel[1] * channels + LANES
    band = np.empty(room, np.int64), np.empty(room, np.float32)
    sums = np.empty(rows * columns * outputs, np.float32)
    for s in range(first, last):
        _padded(x[s], shape, pad, inner, 0)
        _listed(inner, places, events, begins)
        for place in range(rows * columns):
            for n in range(outputs):
                sums[place * outputs + n] = bias[n]
        for j in range(columns):
            _band(events, begins, (height, width, channels), kernel, j, band, starts)
            for i in range(rows):
                to, row = (i * columns + j) * outputs, -i * kernel[1] * channels * outputs
                part = starts[i], starts[i + kernel[0]]
                weigh(sums, taps, ONE, band, (to, outputs), (row, outputs), part)
        out[s] = sums


@njit(**OPTIONS)
def _scatter(events, begins, shape, kernel, taps, to, width):
    """Add to the padded sample `to` what the events of a gradient send; idx is their channel."""
    rows, columns, channels = shape
    length = -(-kernel[1] * width[1] // LANES) * LANES
    for k in range(kernel[0]):
        row = k * channels * length, length
        for j in range(columns):  # neighbours overlap: what was just written is not read
            for i in range(rows):
                place = i * columns + j
                part = begins[place], begins[place + 1]
                if part[0] < part[1]:
                    at = ((i + k) * width[0] + j) * width[1]
                    weigh(to, taps, ONE, events, (at, length), row, part)


@njit(**OPTIONS)
def _sorted(events, begins, shape, samples, width, size, sorted_, ends):
    """Events by channel: c's from c * room to ends[c] - 1; idx becomes where x meets them first."""
    (idx, val), (to_idx, to_val) = events, sorted_
    rows, columns, channels = shape
    room = len(to_idx) // channels
    for c in range(channels):
        ends[c] = c * room
    for s in range(samples):
        for i in range(rows):
            for j in range(columns):
                place = (s * rows + i) * columns + j
                for e in range(begins[place], begins[place + 1]):
                    at = ends[idx[e]]
                    to_idx[at], to_val[at] = s * size + (i * width[0] + j) * width[1], val[e]
                    ends[idx[e]] = at + 1


@njit(**OPTIONS, fastmath={"reassoc"})
def _sum(values, begin, end):
    total = np.float32(0)
    for e in range(begin, end):
        total += values[e]
    return total


@njit(**OPTIONS)
def transposed(first, last, grad, shape, x, inner, pad, kernel, taps, do, to_x, to_taps, to_bias):
    """Compute `scatter` if do[0] and `outer` if do[1], of grad [N, H' W' O] and x [N, H W C].

    taps [rows, O, length] and to_taps [O, rows, length] have the columns and C in a row of taps,
    padded to whole vectors; to_bias [O] gets the sum of all events. Returns whether an event, or a
    value of x that `outer` reads, is not finite: what was computed is then of no use.
    """
    rows, columns, channels = shape
    places, width = rows * columns, (inner[1] + 2 * pad[1], inner[2])
    size = (inner[0] + 2 * pad[0]) * width[0] * width[1]
    length = -(-kernel[1] * inner[2] // LANES) * LANES
    room = GROUP * places + LANES  # of a channel; a power of two would share few lines of cache
    events = np.empty(room * channels, np.int64), np.empty(room * channels, np.float32)
    by_channel = np.empty(room * channels, np.int64), np.empty(room * channels, np.float32)
    begins, ends = np.zeros(GROUP * places + 1, np.int64), np.empty(channels, np.int64)
    dense, sums = np.zeros(GROUP * size + length, np.float32), np.empty(size + length, np.float32)
    worst = np.uint32(0)
    for group in range(first, last, GROUP):
        samples = min(GROUP, last - group)
        for s in range(samples):
            for place in range(places):
                at, row = s * places + place, grad[group + s, place * channels :]
                begins[at + 1] = emit(row, channels, 0, begins[at], events)
        worst = max(worst, _worst(events[1], begins[samples * places]))
        if do[0]:
            for s in range(samples):
                sums[:] = 0
                _scatter(events, begins[s * places :], shape, kernel, taps, sums, width)
                _cropped(to_x[group + s], inner, pad, sums)
        if do[1]:
            for s in range(samples):
                _padded(x[group + s], inner, pad, dense, s * size)
            worst = max(worst, _worst(dense, samples * size))
            _sorted(events, begins, shape, samples, width, size, by_channel, ends)
            for c in range(channels):
                part = c * room, ends[c]
                to_bias[c] += _sum(by_channel[1], part[0], part[1])
                for k in range(kernel[0]):
                    span, row = ((c * kernel[0] + k) * length, length), k * width[0] * width[1]
                    weigh(to_taps, dense, ONE, by_channel, span, (row, 1), part)
    return worst > FINITE


def _rows(maps: Tensor) -> np.ndarray:
    """The memory of maps [N, C, H, W] that lie channels last, as [N, H W C]."""
    return maps.detach().permute(0, 2, 3, 1).numpy().reshape(len(maps), -1)


def _shape(maps: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = maps.shape
    return height, width, channels


def places(x: Tensor, weight: Tensor, padding: Sequence[int]) -> list[int]:
    """Height and width of the output."""
    sides = zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    return [n + 2 * p - k + 1 for n, p, k in sides]


def share(maps: Tensor) -> float:
    """The share of `maps`, channels last, that is not zero, by some of its samples."""
    step = -(-len(maps) // LOOKED_AT)
    seen = -(-len(maps) // step) * maps[0].numel()
    return _count(_rows(maps), step) / max(1, seen)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """The convolution of x [N, C, H, W] by events of x; all lie channels last."""
    outputs, _, *kernel = weight.shape
    shape = (len(x), outputs, *places(x, weight, padding))
    out = torch.empty(shape, memory_format=torch.channels_last)
    bias = weight.new_zeros(outputs) if bias is None else bias.detach()
    taps = weight.detach().permute(2, 3, 1, 0).contiguous().numpy().reshape(-1)
    rows, level = _rows(x), bias.contiguous().numpy()
    arguments = rows, _shape(x), padding, tuple(kernel), taps, level, _rows(out)

    def work(_: int, first: int, last: int) -> None:
        gather(first, last, *arguments)

    run_in_parts(work, len(x), PARTS, torch.get_num_threads())
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], do: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The gradient of x if do[0], and those of weight and bias if do[1], by events of `grad`.

    Returns:
        All three, of which those not asked for mean nothing, or None: something isn't finite.
    """
    outputs, inputs, rows, columns = weight.shape
    length = -(-columns * inputs // LANES) * LANES
    taps = weight.new_zeros(rows, outputs, length)
    taps[..., : columns * inputs] = weight.detach().permute(2, 0, 3, 1).flatten(2)
    to_x = torch.empty_like(x) if do[0] else x  # which is then not written
    to_taps = weight.new_zeros(PARTS, outputs, rows, length)
    to_bias = weight.new_zeros(PARTS, outputs)
    sides = _rows(grad), _shape(grad), _rows(x), _shape(x), padding, (rows, columns)
    arguments = *sides, taps.view(-1).numpy(), do, _rows(to_x)
    sums, more = to_taps.flatten(1).numpy(), to_bias.numpy()

    def work(part: int, first: int, last: int) -> bool:
        return bool(transposed(first, last, *arguments, sums[part], more[part]))

    if any(run_in_parts(work, len(grad), PARTS, torch.get_num_threads())):
        return None
    to_weight = to_taps.sum(0)[..., : columns * inputs].unflatten(-1, (columns, inputs))
    return to_x, to_weight.permute(0, 3, 1, 2), to_bias.sum(0)
