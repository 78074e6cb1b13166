"""Where the cycles of a graph close, and its nodes in order."""

from collections.abc import Collection, Iterable, Mapping, Sequence

Edge = tuple[str, str]


def walk(
    names: Iterable[str],
    readers: Mapping[str, Sequence[str]],
    skip: Collection[Edge] = (),
    first: Collection[str] = (),
) -> tuple[set[Edge], list[str]]:
    """Follow edges depth first, and find where cycles close.

    Args:
        names: the nodes, in the order in which to start from them.
        readers: of each node.
        skip: edges that are not followed.
        first: nodes by whose edges a cycle is better cut.

    Returns:
        One edge of each cycle that was closed and holds none yet: the last that leaves a node of
        `first`, else the one that closed it; and the names, each after its sources where no cycle
        forbids it.
    """
    closing: set[Edge] = set()
    done: list[str] = []
    place: dict[str, int] = {}  # on the path, -1 behind it
    for root in names:
        path = [root] if root not in place else []
        place.setdefault(root, 0)
        ways = [iter(readers[name]) for name in path]
        best = [0 if name in first else -1 for name in path]  # the last of `first` up to here
        cut: list[int] = []  # where the path itself is cut, rising
        while path:
            for reader in ways[-1]:
                if (path[-1], reader) in skip:
                    continue
                if place.setdefault(reader, len(path)) == len(path):
                    best.append(len(path) if reader in first else best[-1])
                    path.append(reader)
                    ways.append(iter(readers[reader]))
                    break
                if (cut[-1] if cut else -1) < place[reader]:
                    at = best[-1] if best[-1] >= place[reader] else len(path) - 1
                    closing.add((path[at], [*path[at + 1 : at + 2], reader][0]))
                    cut += [at] * (at < len(path) - 1)
            else:
                ways.pop()
                best.pop()
                place[path[-1]] = -1
                done.append(path.pop())
                while cut and cut[-1] >= len(path) - 1:
                    cut.pop()
    return closing, done[::-1]


def reached(readers: Mapping[str, Sequence[str]], name: str) -> set[str]:
    """The nodes that the value of `name` gets to, over any number of edges."""
    nodes: set[str] = set()
    waiting = list(readers[name])
    while waiting:
        if (node := waiting.pop()) not in nodes:
            nodes.add(node)
            waiting += readers[node]
    return nodes
