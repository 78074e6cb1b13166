"""The arguments of the engine's pieces, each compiled alone and called by its address."""

from numba import from_dtype, types

from .memory import EDGE, NODE

OPTIONS = {"error_model": "numpy", "nogil": True, "cache": True}
# The addresses of the pieces: of edges by their kind, of others, and of populations by theirs.
DENSE, CONV, SPARSE, CELLS, RELAY, STORE, LEAVE, PART, VISIT = range(9)
NAMES = ["dense", "conv", "sparse", "gather", "relay", "store", "leave", "part"]


def _array(kind: types.Type) -> types.Array:
    return types.Array(kind, 1, "C")


_BYTES, _INTS, _FLOATS = (_array(kind) for kind in (types.uint8, types.int64, types.float32))
_NODE, _EDGE = from_dtype(NODE), from_dtype(EDGE)
_TABLES = types.Tuple([_array(_NODE), _array(_EDGE), _BYTES, _FLOATS, _INTS])
_MEMORY = types.Tuple(
    [_FLOATS, _BYTES, _INTS, _FLOATS, _INTS, _FLOATS, _INTS, _FLOATS, _BYTES]
)  # acc, mark, seen, state, idx, val, sizes, rows, lit

KINDS: dict[str, types.Type] = {
    **dict.fromkeys(["first", "last", "width", "count", "t", "i"], types.int64),
    **dict.fromkeys(["calls", "idx", "ints", "sizes", "seen", "ring_idx", "ring_n"], _INTS),
    **dict.fromkeys(["val", "consts", "acc", "state", "rows", "ring_val"], _FLOATS),
    **dict.fromkeys(["weights", "mark", "lit"], _BYTES),
    **dict.fromkeys(["work", "result"], _array(types.float64)),
    **dict.fromkeys(["node", "source"], _NODE),
    "edge": _EDGE,
    "scale": types.float32,
    "tables": _TABLES,
    "memory": _MEMORY,
}
_EDGE_ARGUMENTS = "edge first last width idx val count weights consts ints acc mark work"
ARGUMENTS = {
    **dict.fromkeys(("dense", "conv", "sparse"), _EDGE_ARGUMENTS),
    "gather": "edge first last width rows lit ints consts acc mark",
    "relay": "node first last acc mark consts rows lit idx val result",
    "store": "node source t idx val sizes ints ring_idx ring_val ring_n",
    "leave": "node t ring_idx ring_val ring_n idx val result",
    "part": "calls tables memory i first last t scale work result",
    "visit": "node first last t scale acc mark seen state consts idx val result",
}


def kinds(name: str) -> types.BaseTuple:
    """The types of a piece's arguments."""
    return types.Tuple([KINDS[argument] for argument in ARGUMENTS[name].split()])
