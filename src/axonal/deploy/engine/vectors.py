"""Inner loops of the engine in LLVM's vectors, for a compiler keeps no sums of many events in
registers by itself.

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

    def floats(self, where: Any, lanes: int) -> Any:
        """Weights as float32: bfloat16's bits are the upper half of one."""
        raw, wide = self.read(where, lanes), _vector(F32, lanes)
        if self.kind.dtype == types.uint16:
            bits = self.builder.zext(raw, _vector(I32, lanes))
            return self.builder.bitcast(self.builder.shl(bits, _constant(I32, [16] * lanes)), wide)
        return raw if self.kind.dtype == types.float32 else self.builder.sitofp(raw, wide)


def _weigh(context: Any, sums: Any, span: Any, weights: Any, row: Any, events: Any, part: Any):
    """weigh(sums, (to, size), weights, (offset, stride), (idx, val), (begin, end)): adds what
    events carry to values that lie side by side.

    sums[to + n] += sum over e from begin to end - 1 of
        val[e] * weights[offset + idx[e] * stride + n],  for n from 0 to size - 1

    in the order of the events. Sums stay in registers while events pass.
    """
    pair = types.UniTuple(types.int64, 2)
    signature = types.void(sums, pair, weights, pair, events, pair)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        sums, weights = (_Rows(context, builder, signature.args[k], given[k]) for k in (0, 2))
        (to, size), (offset, stride), (begin, end) = (_both(builder, given[k]) for k in (1, 3, 5))
        both = zip(signature.args[4], _both(builder, given[4]), strict=True)
        idx, val = (_Rows(context, builder, kind, array) for kind, array in both)

        def block(first: Any, count: int, lanes: int) -> None:
            parts = [builder.add(first, I64(lanes * k)) for k in range(count)]
            kept = [cgutils.alloca_once(builder, _vector(F32, lanes)) for _ in parts]
            for n, slot in zip(parts, kept, strict=True):
                builder.store(sums.read(builder.add(to, n), lanes), slot)
            with cgutils.for_range_slice(builder, begin, end, I64(1)) as (e, _):
                row = builder.add(offset, builder.mul(idx.one(e), stride))
                value = _all(builder, val.one(e), lanes)
                for n, slot in zip(parts, kept, strict=True):
                    weight = weights.floats(builder.add(row, n), lanes)
                    more = builder.fmul(value, weight, flags=FUSED)
                    builder.store(builder.fadd(builder.load(slot), more, flags=FUSED), slot)
            for n, slot in zip(parts, kept, strict=True):
                sums.write(builder.load(slot), builder.add(to, n), lanes)

        _blockwise(builder, size, block)
        return context.get_dummy_value()

    return signature, generate


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
nonzero: Any = intrinsic(_nonzero)
emit: Any = intrinsic(_emit)
