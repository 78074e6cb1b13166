"""Prefetching of memory before it is needed.

A processor fetches ahead by itself along a page of memory, but time steps lie pages apart; and a
store to a line that is not at hand waits until the line has been read.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes
BYTE, I32, I64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


@intrinsic
def prefetch(_: Any, row: Any, write: Any):
    """Ask for a contiguous row of an array, to write to it or to read it: prefetch(row, write).

    A hint, without any effect on values; `write` is 0 or 1, and a constant.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(row)(context, builder, arguments[0])
        begin = builder.bitcast(array.data, BYTE)
        size = builder.mul(builder.extract_value(array.shape, 0), array.itemsize)
        kind = ir.FunctionType(ir.VoidType(), [BYTE, I32, I32, I32])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [BYTE], kind)
        # Into the nearest cache (3); data, and not instructions (1).
        with cgutils.for_range_slice(builder, I64(0), size, I64(LINE), inc=True) as (at, _):
            builder.call(ask, [builder.gep(begin, [at]), I32(write.literal_value), I32(3), I32(1)])
        return context.get_dummy_value()

    return (types.void(row, write), generate) if isinstance(write, types.Literal) else None
