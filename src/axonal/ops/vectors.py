"""Inner loops in LLVM's vectors, for a compiler keeps no sums of many events in
registers by itself.

Vectors have 16 lanes of float32; LLVM splits them where a processor's are narrower. A function's
plain form is in its docstring, and tests compare both.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
LANES = 16
# How many values a pass over the events sums at once: as many vectors, of so many lanes.
BLOCKS = ((8, LANES), (4, LANES), (2, LANES), (1, LANES), (1, 8), (1, 4), (1, 1))
# Sizes of cells that `slide` has loops of their own for: without a choice for each cell.
WIDTHS = (*((count, LANES) for count in range(1, 9)), (1, 8), (1, 4))
FUSED = ("contract",)  # a product and a sum may become one instruction


def _vector(of: ir.Type, lanes: int) -> ir.Type:
    return ir.VectorType(of, lanes)


def _constant(of: ir.Type, values: list[int]) -> ir.Constant:
    return ir.Constant(_vector(of, len(values)), values)


def _all(builder: Any, value: Any, lanes: int) -> Any:
    """A vector whose lanes are all `value`."""
    empty = ir.Constant(_vector(value.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(first, empty, _constant(I32, [0] * lanes))


class _Rows:
    """Vectors read from and written to a Numba array."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any):
        self.builder, self.kind = builder, kind
        self.data = context.make_array(kind)(context, builder, array).data
        self.of = context.get_data_type(kind.dtype)
        self.align = context.get_abi_alignment(self.of)

    def at(self, where: Any, lanes: int) -> Any:
        place = self.builder.gep(self.data, [where])
        return self.builder.bitcast(place, _vector(self.of, lanes).as_pointer())

    def read(self, where: Any, lanes: int) -> Any:
        return self.builder.load(self.at(where, lanes), align=self.align)

    def write(self, value: Any, where: Any, lanes: int) -> None:
        self.builder.store(value, self.at(where, lanes), align=self.align)

    def one(self, where: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [where]))

    def put(self, value: int, where: Any) -> None:
        self.builder.store(ir.Constant(self.of, value), self.builder.gep(self.data, [where]))

    def floats(self, where: Any, lanes: int) -> Any:
        """Weights as float32: bfloat16's bits are the upper half of one."""
        raw, wide = self.read(where, lanes), _vector(F32, lanes)
        if self.kind.dtype == types.uint16:
            bits = self.builder.zext(raw, _vector(I32, lanes))
            return self.builder.bitcast(self.builder.shl(bits, _constant(I32, [16] * lanes)), wide)
        return raw if self.kind.dtype == types.float32 else self.builder.sitofp(raw, wide)


class _Sums:
    """Sums that stay in registers while events pass: what `weigh` and `slide` have in common."""

    def __init__(self, context: Any, builder: Any, kinds: Any, given: Any):
        """Of sums, weights, scale and (idx, val), in this order."""
        self.builder, self.scale = builder, given[2]
        self.sums, self.weights = (_Rows(context, builder, kinds[k], given[k]) for k in (0, 1))
        both = zip(kinds[3], _both(builder, given[3]), strict=True)
        self.idx, self.val = (_Rows(context, builder, kind, array) for kind, array in both)

    def block(self, count: int, lanes: int, stride: Any, to: Any, offset: Any, part: Any) -> None:
        """Adds to so many vectors from sums[to] on what the events of a part carry."""
        builder, steps = self.builder, [I64(lanes * k) for k in range(count)]
        kept = [cgutils.alloca_once(builder, _vector(F32, lanes)) for _ in steps]
        for n, slot in zip(steps, kept, strict=True):
            builder.store(self.sums.read(builder.add(to, n), lanes), slot)
        begin, end = part
        with cgutils.for_range_slice(builder, begin, end, I64(1)) as (e, _):
            row = builder.add(offset, builder.mul(self.idx.one(e), stride))
            value = _all(builder, builder.fmul(self.val.one(e), self.scale), lanes)
            for n, slot in zip(steps, kept, strict=True):
                weight = self.weights.floats(builder.add(row, n), lanes)
                more = builder.fmul(value, weight, flags=FUSED)
                builder.store(builder.fadd(builder.load(slot), more, flags=FUSED), slot)
        for n, slot in zip(steps, kept, strict=True):
            self.sums.write(builder.load(slot), builder.add(to, n), lanes)

    def blocks(self, size: Any, stride: Any, to: Any, offset: Any, part: Any) -> None:
        """As `block`, for any number of sums."""

        def block(first: Any, count: int, lanes: int) -> None:
            add = self.builder.add
            self.block(count, lanes, stride, add(to, first), add(offset, first), part)

        _blockwise(self.builder, size, block)


def _weigh(
    context: Any, sums: Any, weights: Any, scale: Any, events: Any, span: Any, row: Any, part: Any
):
    """weigh(sums, weights, scale, (idx, val), (to, size), (offset, stride), (begin, end)): adds
    what events carry to values that lie side by side.

    sums[to + n] += sum over e from begin to end - 1 of
        scale * val[e] * weights[offset + idx[e] * stride + n],  for n from 0 to size - 1

    in the order of the events.
    """
    pair, kinds = types.UniTuple(types.int64, 2), (sums, weights, types.float32, events)
    signature = types.void(*kinds, pair, pair, pair)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        (to, size), (offset, stride), part = (_both(builder, pair) for pair in given[4:])
        _Sums(context, builder, signature.args, given).blocks(size, stride, to, offset, part)
        return context.get_dummy_value()

    return signature, generate


def _slide(context: Any, sums: Any, weights: Any, scale: Any, events: Any, line: Any, cells: Any):
    """slide(sums, weights, scale, (idx, val), line, (begins, before, mark)): slides taps along a
    row of cells, whose events are in order; line = (cell, count, size, left, step, reach, wide,
    offset, inputs).

    For x from 0 to count - 1, the events begins[a] to begins[b] - 1 are those of the cells from
    left + x * step on, as many as reach, as far as they are between a >= 0 and b <= wide. If there
    are any, mark[cell + x] = 1, and each adds, for n from 0 to size - 1,

    sums[(cell + x) * size + n] += scale * val[e] * weights[row * size + n]
        with row = offset + idx[e] - (left + x * step) * inputs

    in the order of the events. Returns what they count as, the sum of before[b] - before[a].
    """
    kinds = (sums, weights, types.float32, events)
    signature = types.float64(*kinds, types.UniTuple(types.int64, 9), cells)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        numbers = [builder.extract_value(given[4], k) for k in range(9)]
        cell, count, size, left, step, reach, wide, offset, inputs = numbers
        found = _Sums(context, builder, signature.args, given)
        begins, before, mark = (
            _Rows(context, builder, kind, builder.extract_value(given[5], k))
            for k, kind in enumerate(signature.args[5])
        )
        work = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))

        def inside(place: Any) -> Any:
            low = builder.select(builder.icmp_signed("<", place, I64(0)), I64(0), place)
            return builder.select(builder.icmp_signed(">", low, wide), wide, low)

        def along(add: Callable[[Any, Any, Any], None]) -> None:
            with cgutils.for_range_slice(builder, I64(0), count, I64(1)) as (x, _):
                first = builder.add(left, builder.mul(x, step))
                a, b = inside(first), inside(builder.add(first, reach))
                part = begins.one(a), begins.one(b)
                with builder.if_then(builder.icmp_signed("<", *part)):
                    to, row = builder.add(cell, x), builder.mul(first, inputs)
                    mark.put(1, to)
                    more = builder.fsub(before.one(b), before.one(a))
                    builder.store(builder.fadd(builder.load(work), more), work)
                    row = builder.mul(builder.sub(offset, row), size)
                    add(builder.mul(to, size), row, part)

        _by_size(builder, size, found, along)
        return builder.load(work)

    return signature, generate


def _by_size(builder: Any, size: Any, sums: _Sums, along: Callable[[Any], None]) -> None:
    """Calls `along` with what adds to cells of `size`, once for each size that is known."""
    end, other = builder.append_basic_block("end"), builder.append_basic_block("other")
    choice = builder.switch(size, other)
    for count, lanes in WIDTHS:
        fixed = I64(count * lanes)
        choice.add_case(fixed, block := builder.append_basic_block("known"))
        builder.position_at_end(block)
        along(partial(sums.block, count, lanes, fixed))
        builder.branch(end)
    builder.position_at_end(other)
    along(partial(sums.blocks, size, size))
    builder.branch(end)
    builder.position_at_end(end)


def _nonzero(context: Any, row: Any, size: Any):
    """nonzero(row, size): how many of row[:size] are not zero."""
    signature = types.int64(row, types.int64)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        row, found = _Rows(context, builder, signature.args[0], given[0]), _number(builder, I64(0))

        def block(first: Any, count: int, lanes: int) -> None:
            for k in range(count):
                values = row.read(builder.add(first, I64(lanes * k)), lanes)
                some = _count(builder, _unequal(builder, values, lanes), lanes)
                builder.store(builder.add(builder.load(found), some), found)

        _blockwise(builder, given[1], block)
        return builder.load(found)

    return signature, generate


def _emit(context: Any, row: Any, size: Any, base: Any, at: Any, events: Any):
    """emit(row, size, base, at, (idx, val)): appends those of row[:size] that are not zero.

    The first is written at `at`; of row[n] idx gets base + n and val the value. Returns where
    they end.
    """
    i = types.int64
    signature = i(row, i, i, i, events)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        row, at = _Rows(context, builder, signature.args[0], given[0]), _number(builder, given[3])
        both = zip(signature.args[4], _both(builder, given[4]), strict=True)
        idx, val = (_Rows(context, builder, kind, array) for kind, array in both)

        def block(first: Any, count: int, lanes: int) -> None:
            for k in range(count):
                part(builder.add(first, I64(lanes * k)), lanes)

        def part(n: Any, lanes: int) -> None:
            values = row.read(n, lanes)
            mask = _unequal(builder, values, lanes)
            some = _count(builder, mask, lanes)
            with builder.if_then(builder.icmp_signed("!=", some, I64(0)), likely=False):
                place = builder.load(at)
                numbers = _all(builder, builder.add(given[2], n), lanes)
                numbers = builder.add(numbers, _constant(I64, list(range(lanes))))
                _compress(builder, numbers, mask, builder.gep(idx.data, [place]), f"v{lanes}i64")
                _compress(builder, values, mask, builder.gep(val.data, [place]), f"v{lanes}f32")
                builder.store(builder.add(place, some), at)

        _blockwise(builder, given[1], block)
        return builder.load(at)

    return signature, generate


def _both(builder: Any, pair: Any) -> tuple[Any, Any]:
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def _blockwise(builder: Any, size: Any, block: Callable[[Any, int, int], None]) -> None:
    """Calls `block(first, vectors, lanes)` until all of `size` values are covered."""
    done: Any = I64(0)
    for count, lanes in BLOCKS:
        step = I64(count * lanes)
        end = builder.mul(builder.udiv(size, step), step)
        with cgutils.for_range_slice(builder, done, end, step) as (first, _):
            block(first, count, lanes)
        done = end


def _number(builder: Any, value: Any) -> Any:
    slot = cgutils.alloca_once(builder, I64)
    builder.store(value, slot)
    return slot


def _unequal(builder: Any, values: Any, lanes: int) -> Any:
    return builder.fcmp_unordered("!=", values, ir.Constant(_vector(F32, lanes), [0.0] * lanes))


def _count(builder: Any, mask: Any, lanes: int) -> Any:
    bits = builder.zext(builder.bitcast(mask, ir.IntType(lanes)), I64)
    return builder.ctpop(bits)


def _compress(builder: Any, values: Any, mask: Any, to: Any, kind: str) -> None:
    """Writes the values whose lane is set one behind another."""
    types_ = [values.type, to.type, mask.type]
    call = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), types_), f"llvm.masked.compressstore.{kind}"
    )
    builder.call(call, [values, to, mask])


weigh: Any = intrinsic(_weigh)
slide: Any = intrinsic(_slide)
nonzero: Any = intrinsic(_nonzero)
emit: Any = intrinsic(_emit)
