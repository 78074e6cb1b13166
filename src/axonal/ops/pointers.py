"""Calls through addresses, and words that threads share, in compiled code.

What is called by name is compiled into its caller, and again with each of them. What is called by
its address is compiled once, alone, and callers need not be compiled anew for it.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

BYTES = ir.IntType(8).as_pointer()
ENTRY = types.void(types.voidptr)  # what is called by its address: it gets that of its arguments
ORDER = "seq_cst"


def caller(arguments: types.BaseTuple) -> Any:
    """Make `call(address, arguments)`, which calls an `ENTRY` with arguments of these types."""

    def call(context: Any, address: Any, values: Any):
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            slot = builder.bitcast(cgutils.alloca_once_value(builder, args[1]), BYTES)
            kind = ir.FunctionType(ir.VoidType(), [BYTES]).as_pointer()
            builder.call(builder.inttoptr(args[0], kind), [slot])
            return context.get_dummy_value()

        return types.void(types.int64, arguments), generate

    return intrinsic(call)


def loader(arguments: types.BaseTuple) -> Any:
    """Make `load(pointer)`, which gives an `ENTRY` the arguments that it was called with."""

    def load(context: Any, pointer: Any):
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(arguments).as_pointer()
            values = builder.load(builder.bitcast(args[0], kind))
            return impl_ret_borrowed(context, builder, arguments, values)

        return arguments(types.voidptr), generate

    return intrinsic(load)


def viewer(dtype: Any) -> Any:
    """Make `view(array)`: the bytes of an array as numbers of another type, without its length."""
    kind = types.Array(dtype, 1, "C")

    def view(context: Any, array: Any):
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = context.make_array(signature.args[0])(context, builder, args[0])
            result = context.make_array(kind)(context, builder)
            of = context.get_data_type(dtype)
            item = context.get_constant(types.intp, context.get_abi_sizeof(of))
            count = builder.udiv(builder.mul(source.nitems, source.itemsize), item)
            result.data = builder.bitcast(source.data, of.as_pointer())
            result.nitems, result.itemsize = count, item
            result.shape = cgutils.pack_array(builder, [count])
            result.strides = cgutils.pack_array(builder, [item])
            result.meminfo, result.parent = source.meminfo, source.parent
            return impl_ret_borrowed(context, builder, kind, result._getvalue())

        return kind(array), generate

    return intrinsic(view)


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Where the word of an array of int64 is."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


def _read(context: Any, words: Any, at: Any):
    """read(words, at): words[at], after all that was written before it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), ORDER, 8)

    return types.int64(words, types.int64), generate


def _write(context: Any, words: Any, at: Any, value: Any):
    """write(words, at, value): words[at] = value, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _place(context, builder, signature, args), ORDER, 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), generate


def _add(context: Any, words: Any, at: Any, value: Any):
    """add(words, at, value): words[at] += value, by one thread after another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("add", _place(context, builder, signature, args), args[2], ORDER)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), generate


def _swap(context: Any, words: Any, at: Any, old: Any, new: Any):
    """swap(words, at, old, new): words[at] = new if it is old; whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        result = builder.cmpxchg(place, args[2], args[3], ORDER, ORDER)
        return builder.extract_value(result, 1)

    i = types.int64
    return types.boolean(words, i, i, i), generate


def _clock(context: Any, address: Any, number: Any, room: Any):
    """clock(address, number, room): call clock_gettime there; nanoseconds. `room` holds two."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, i64 = ir.IntType(32), ir.IntType(64)
        data = context.make_array(signature.args[2])(context, builder, args[2]).data
        kind = ir.FunctionType(i32, [i32, i64.as_pointer()]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [builder.trunc(args[1], i32), data])
        seconds, rest = (builder.load(builder.gep(data, [i64(k)])) for k in range(2))
        return builder.add(builder.mul(seconds, i64(10**9)), rest)

    return types.int64(types.int64, types.int64, room), generate


def _pause(context: Any, address: Any, microseconds: Any):
    """pause(address, microseconds): call usleep there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        kind = ir.FunctionType(i32, [i32]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [builder.trunc(args[1], i32)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


read: Any = intrinsic(_read)
write: Any = intrinsic(_write)
add: Any = intrinsic(_add)
swap: Any = intrinsic(_swap)
clock: Any = intrinsic(_clock)
pause: Any = intrinsic(_pause)
