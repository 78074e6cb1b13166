"""Inner loops in vectors of LLVM: compilers keep no sums of many events in registers.

Vectors have 16 lanes of float32; LLVM splits them where a processor's are narrower. A function's
plain form is in its docstring, and tests compare both.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
LANES = 16
# How many values a pass over the events sums at once: as many vectors, of so many lanes.
BLOCKS = ((8, LANES), (4, LANES), (2, LANES), (1, LANES), (1, 8), (1, 4), (1, 1))
# What `slide` reads from its line.
LINE = "lines cell up count size left step reach base wide tap taps inputs"
LINES = 3  # rows of taps that slide together, so that a pass over events is worth its start
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

    def __init__(self, context: Any, builder: Any, kinds: Any, args: Any):
        """Of sums, weights, scale and (idx, val), in this order."""
        self.builder, self.scale = builder, args[2]
        self.sums, self.weights = (_Rows(context, builder, kinds[k], args[k]) for k in (0, 1))
        both = zip(kinds[3], _parts(builder, args[3]), strict=True)
        self.idx, self.val = (_Rows(context, builder, kind, array) for kind, array in both)

    def block(self, count: int, lanes: int, stride: Any, lines: Any, part: Any) -> None:
        """Add to so many vectors of each line what the events of a part carry.

        A line is where its sums begin, and its weights.
        """
        builder, steps = self.builder, [I64(lanes * k) for k in range(count)]
        places = [(builder.add(to, n), builder.add(of, n)) for to, of in lines for n in steps]
        slots = [cgutils.alloca_once(builder, _vector(F32, lanes)) for _ in places]
        for (to, _), slot in zip(places, slots, strict=True):
            builder.store(self.sums.read(to, lanes), slot)
        begin, end = part
        with cgutils.for_range_slice(builder, begin, end, I64(1)) as (e, _):
            row = builder.mul(self.idx.one(e), stride)
            value = _all(builder, builder.fmul(self.val.one(e), self.scale), lanes)
            for (_, of), slot in zip(places, slots, strict=True):
                weight = self.weights.floats(builder.add(row, of), lanes)
                more = builder.fmul(value, weight, flags=FUSED)
                builder.store(builder.fadd(builder.load(slot), more, flags=FUSED), slot)
        for (to, _), slot in zip(places, slots, strict=True):
            self.sums.write(builder.load(slot), to, lanes)

    def blocks(self, size: Any, stride: Any, lines: Any, part: Any) -> None:
        """As `block`, for any number of sums."""
        add = self.builder.add

        def block(first: Any, count: int, lanes: int) -> None:
            for to, of in lines:
                self.block(count, lanes, stride, [(add(to, first), add(of, first))], part)

        _blockwise(self.builder, size, block)


def _weigh(
    context: Any, sums: Any, weights: Any, scale: Any, events: Any, span: Any, row: Any, part: Any
):
    """Add what events carry to values that lie side by side.

    weigh(sums, weights, scale, (idx, val), (to, size), (offset, stride), (begin, end)):

    sums[to + n] += sum over e from begin to end - 1 of
        scale * val[e] * weights[offset + idx[e] * stride + n],  for n from 0 to size - 1

    in the order of the events.
    """
    pair, kinds = types.UniTuple(types.int64, 2), (sums, weights, types.float32, events)
    signature = types.void(*kinds, pair, pair, pair)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (to, size), (offset, stride), part = (_parts(builder, pair) for pair in args[4:])
        _Sums(context, builder, signature.args, args).blocks(size, stride, [(to, offset)], part)
        return context.get_dummy_value()

    return signature, generate


def _slide(context: Any, sums: Any, weights: Any, scale: Any, events: Any, line: Any, cells: Any):
    """Slide rows of taps along a row of cells, whose events are in order.

    slide(sums, weights, scale, (idx, val), line, (begins, before, mark)), with line = (lines, cell,
    up, count, size, left, step, reach, base, wide, tap, taps, inputs).

    For x from 0 to count - 1, the events begins[a] to begins[b] - 1 are those of the cells from
    left + x * step on, as many as reach, as far as they are between a >= 0 and b <= wide. If there
    are any, for k from 0 to lines - 1, with to = cell + x - k * up: mark[to] = 1, and each adds,
    for n from 0 to size - 1,

    sums[to * size + n] += scale * val[e] * weights[row * size + n]
        with row = (tap + k * taps - base - left - x * step) * inputs + idx[e]

    in the order of the events; idx of the row's first cell is base * inputs, lines 1 or `LINES`.
    Returns what the events count as, the sum of lines * (before[b] - before[a]).
    """
    kinds = (sums, weights, types.float32, events)
    signature = types.float64(*kinds, types.UniTuple(types.int64, len(LINE.split())), cells)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _Slide(context, builder, signature.args, args).run()

    return signature, generate


class _Slide:
    """The loops of `slide`."""

    def __init__(self, context: Any, builder: Any, kinds: Any, args: Any):
        self.builder, self.sums = builder, _Sums(context, builder, kinds, args)
        names = LINE.split()
        self.line = dict(zip(names, _parts(builder, args[4], len(names)), strict=True))
        self.begins, self.before, self.mark = (
            _Rows(context, builder, kind, array)
            for kind, array in zip(kinds[5], _parts(builder, args[5], 3), strict=True)
        )
        self.work = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))
        self.place = cgutils.alloca_once(builder, I64)

    def run(self) -> Any:
        """Slide over all cells; what the events count as."""
        builder, lines, size = self.builder, self.line["lines"], self.line["size"]
        with builder.if_else(builder.icmp_signed("==", lines, I64(1))) as (one, more):
            with one:
                self.along(1, size)
            with more:
                self.along(LINES, size)
        return builder.fmul(builder.load(self.work), builder.sitofp(lines, ir.DoubleType()))

    def along(self, rows: int, size: Any) -> None:
        """Slide so many rows of taps over all cells of so many values."""
        builder, line = self.builder, self.line
        builder.store(I64(0), self.place)
        check, body, done = (builder.append_basic_block() for _ in range(3))
        builder.branch(check)
        builder.position_at_end(check)
        x = builder.load(self.place)
        builder.cbranch(builder.icmp_signed("<", x, line["count"]), body, done)
        builder.position_at_end(body)
        first = builder.add(line["left"], builder.mul(x, line["step"]))
        a, b = self.inside(first), self.inside(builder.add(first, line["reach"]))
        part = self.begins.one(a), self.begins.one(b)
        with builder.if_else(builder.icmp_signed("<", *part), likely=True) as (some, none):
            with some:
                more = builder.fsub(self.before.one(b), self.before.one(a))
                builder.store(builder.fadd(builder.load(self.work), more), self.work)
                self.sums.blocks(size, size, self.reached(x, first, rows), part)
                builder.store(builder.add(x, I64(1)), self.place)
            with none:
                self.jump(part[1])
        builder.branch(check)
        builder.position_at_end(done)

    def inside(self, cell: Any) -> Any:
        """The cell, or the nearest end of the row."""
        builder, wide = self.builder, self.line["wide"]
        low = builder.select(builder.icmp_signed("<", cell, I64(0)), I64(0), cell)
        return builder.select(builder.icmp_signed(">", low, wide), wide, low)

    def reached(self, x: Any, first: Any, rows: int) -> list[tuple[Any, Any]]:
        """Mark the outputs that are reached; where their sums begin, and the weights."""
        add, sub, mul, line = self.builder.add, self.builder.sub, self.builder.mul, self.line
        starts = []
        for k in range(rows):
            to = sub(add(line["cell"], x), mul(line["up"], I64(k)))
            tap = sub(add(line["tap"], mul(line["taps"], I64(k))), add(line["base"], first))
            self.mark.put(1, to)
            starts.append((mul(to, line["size"]), mul(mul(tap, line["inputs"]), line["size"])))
        return starts

    def jump(self, event: Any) -> None:
        """Go on where the next event reaches, if there is one."""
        builder, line = self.builder, self.line
        builder.store(line["count"], self.place)
        more = builder.icmp_signed("<", event, self.begins.one(line["wide"]))
        with builder.if_then(more):
            cell = builder.udiv(self.sums.idx.one(event), line["inputs"])
            over = builder.add(line["base"], builder.add(line["left"], line["reach"]))
            steps = builder.sdiv(builder.sub(cell, over), line["step"])
            builder.store(builder.add(steps, I64(1)), self.place)


def _nonzero(context: Any, row: Any, size: Any):
    """nonzero(row, size): how many of row[:size] are not zero."""
    signature = types.int64(row, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, found = _Rows(context, builder, signature.args[0], args[0]), _number(builder, I64(0))

        def block(first: Any, count: int, lanes: int) -> None:
            for k in range(count):
                values = row.read(builder.add(first, I64(lanes * k)), lanes)
                some = _count(builder, _unequal(builder, values, lanes), lanes)
                builder.store(builder.add(builder.load(found), some), found)

        _blockwise(builder, args[1], block)
        return builder.load(found)

    return signature, generate


def _emit(context: Any, row: Any, size: Any, base: Any, at: Any, events: Any):
    """emit(row, size, base, at, (idx, val)): appends those of row[:size] that are not zero.

    The first is written at `at`; of row[n] idx gets base + n and val the value. Returns where
    they end.
    """
    i = types.int64
    signature = i(row, i, i, i, events)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, at = _Rows(context, builder, signature.args[0], args[0]), _number(builder, args[3])
        both = zip(signature.args[4], _parts(builder, args[4]), strict=True)
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
                numbers = _all(builder, builder.add(args[2], n), lanes)
                numbers = builder.add(numbers, _constant(I64, list(range(lanes))))
                _compress(builder, numbers, mask, builder.gep(idx.data, [place]), f"v{lanes}i64")
                _compress(builder, values, mask, builder.gep(val.data, [place]), f"v{lanes}f32")
                builder.store(builder.add(place, some), at)

        _blockwise(builder, args[1], block)
        return builder.load(at)

    return signature, generate


def _parts(builder: Any, args: Any, count: int = 2) -> list[Any]:
    return [builder.extract_value(args, k) for k in range(count)]


def _blockwise(builder: Any, size: Any, block: Callable[[Any, int, int], None]) -> None:
    """Call `block(first, vectors, lanes)` until all of `size` values are covered."""
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
    """Write the values whose lane is set one behind another."""
    types_ = [values.type, to.type, mask.type]
    call = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), types_), f"llvm.masked.compressstore.{kind}"
    )
    builder.call(call, [values, to, mask])


weigh: Any = intrinsic(_weigh)
slide: Any = intrinsic(_slide)
nonzero: Any = intrinsic(_nonzero)
emit: Any = intrinsic(_emit)
