# SPDX-License-Identifier: MIT
"""Looks as JSON, and back without loss. What is read is not trusted: types, sizes and lengths are checked."""

import json
import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from pktdrop.model.counters import SOURCES, Row
from pktdrop.model.drops import Count, DropKey, Uncounted
from pktdrop.model.look import Look
from pktdrop.model.snapshots import Drops, Kinds, Snapshot

FORMAT: Final = 2
"""Version of what is written; another one is refused."""
MOST_TEXT: Final = 1 << 26
"""Characters of a Look: 65,536 kinds of drops take some 10 MB, a namespace 20 kB."""
_MOST_ITEMS: Final = 1 << 20
_MOST_CHARACTERS: Final = 1 << 16
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_LATEST: Final = 1 << 38
"""Seconds: the year 10680, which clocks can still show."""
_NAME: Final = 80
"""Characters of a name in a message."""
_PLAIN_JSON: Final = (",", ":")
_GAUGES: Final = ("softnet", "qdisc", "socket")
_PROBES: Final = ("kfree_skb", "enqueue_to_backlog")

Write = Callable[[Any], Any]
Read = Callable[[Any], Any]


class Malformed(ValueError):
    """What was to be a Look is none; the text says where and why."""

    def __init__(self, why: str, *where: str) -> None:
        """Take what is wrong, and the names of what it is in."""
        super().__init__(f"{'.'.join(where)}: {why}" if where else why)
        self.why, self.where = why, where


@dataclass(frozen=True)
class _Written:
    """A Snapshot in the form in which it is written."""

    time: float
    monotonic: float
    uncounted: Uncounted
    keys: tuple[DropKey, ...] | None
    """Kinds, one for each count; None: those of the later Snapshot, as far as there are counts."""
    packets: tuple[int, ...]
    octets: tuple[int, ...]


def to_json(look: Look) -> str:
    """Return a Look as one line of JSON."""
    before, after = _whole(look.before.drops), _whole(look.after.drops)
    parts = {
        "before": _written(look.before, before, None if before.kinds is after.kinds else tuple(before)),
        "after": _written(look.after, after, tuple(after)),
    }
    return json.dumps(
        {"format": FORMAT, **_LOOK[0](replace(look, **cast("dict[str, Any]", parts)))}, separators=_PLAIN_JSON
    )


def from_json(text: str | bytes) -> Look:
    """Return the Look that to_json() wrote. Raises Malformed."""
    if len(text) > MOST_TEXT:
        raise Malformed(f"a Look has at most {MOST_TEXT:,} characters, this has {len(text):,}")
    try:
        data = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as wrong:
        raise Malformed(f"this is no JSON: {wrong}") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise Malformed(f"this is no Look in format {FORMAT}")
    look: Look = _LOOK[1](data)
    after = _read("after", look.after, Kinds())
    look = replace(look, after=after, before=_read("before", look.before, Drops.of(after.drops).kinds))
    _check(look)
    return look


def _whole(drops: Mapping[DropKey, Count]) -> Drops:
    """Return drops whose numbers are those from 0 on."""
    found = Drops.of(drops)
    return found if found.numbers == range(len(found)) else Drops.of(dict(found.items()))


def _written(snapshot: Snapshot, drops: Drops, keys: tuple[DropKey, ...] | None) -> _Written:
    return _Written(
        snapshot.time, snapshot.monotonic, snapshot.uncounted, keys, tuple(drops.packets), tuple(drops.octets)
    )


def _read(name: str, snapshot: Any, kinds: Kinds) -> Snapshot:
    """Return a Snapshot as it was written; where its keys are not told, those of others."""
    written: _Written = snapshot
    if written.keys is not None:
        kinds = Kinds()
        for key in written.keys:
            kinds.number(key)
        if len(kinds) != len(written.keys):
            raise Malformed("a kind of drops is there twice", name, "keys")
    size = len(written.packets)
    if size > len(kinds) or size != len(written.octets) or (written.keys is not None and size != len(kinds)):
        raise Malformed("there are not as many counts as kinds of drops", name, "packets")
    if min((*written.packets, *written.octets), default=0) < 0:
        raise Malformed("a count is below 0", name, "packets")
    drops = Drops(kinds, range(size), array("Q", written.packets), array("Q", written.octets))
    return Snapshot(time=written.time, monotonic=written.monotonic, drops=drops, uncounted=written.uncounted)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _check(look: Look) -> None:
    """Raise Malformed where parts do not go together."""
    for have, need, where in (
        (look.counters.rows, SOURCES, ("counters", "rows")),
        (look.counters.gauges, _GAUGES, ("counters", "gauges")),
        (look.kernel.rungs, _PROBES, ("kernel", "rungs")),
    ):
        for name in need:
            if name not in have:
                raise Malformed("it is missing", *where, name)
    before, after = Drops.of(look.before.drops), Drops.of(look.after.drops)
    shared = zip(before.packets, before.octets, after.packets, after.octets, strict=False)
    if before.kinds is after.kinds and any(packets > now or size > more for packets, size, now, more in shared):
        raise Malformed("it has more drops than what was read after it", "before")


# --- values


def _codec(kind: Any) -> tuple[Write, Read]:
    """Return what writes values of a type, and what reads them."""
    origin, given = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind is Snapshot:
        return _object(_Written)
    if kind is Row:
        return _named_tuple(kind, lambda row: len(row.names) == len(row.values))
    if origin in (Union, UnionType):
        return _union([*map(_codec, given)], given)
    if origin is tuple and given[-1] is not ...:
        return _fixed(tuple, [*map(_codec, given)])
    if origin in (tuple, frozenset):
        return _many(origin, *_codec(given[0]))
    if origin is Mapping:
        return _mapping(given[0] is str, *(_codec(one) for one in given))
    if is_dataclass(kind):
        return _object(kind)
    return _named_tuple(kind)


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > _MOST_CHARACTERS:
        raise Malformed("it is no text, or too long a one")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not _LEAST <= value <= _MOST:
        raise Malformed("it is no whole number of 64 bits")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("it is neither true nor false")
    return value


def _moment(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= _LATEST:
        raise Malformed("it is no time")
    return float(value)


def _nothing(value: Any) -> None:
    if value is not None:
        raise Malformed("it is not null")


def _octets(value: Any) -> bytes:
    try:
        return bytes.fromhex(_text(value))
    except ValueError:
        raise Malformed("these are no bytes in hex") from None


def _items(value: Any, most: int = _MOST_ITEMS) -> list[Any]:
    if type(value) is not list or len(value) > most:
        raise Malformed("it is no list, or too long a one")
    return value


def _at(name: object, read: Read, value: Any) -> Any:
    """Read a part; tell its name if it is wrong."""
    try:
        return read(value)
    except Malformed as wrong:
        raise Malformed(wrong.why, str(name)[:_NAME], *wrong.where) from None


# --- what holds values


def _union(codecs: list[tuple[Write, Read]], kinds: tuple[Any, ...]) -> tuple[Write, Read]:
    """Return what writes and reads one of several types, which JSON tells apart."""
    of = {get_origin(kind) or kind: codec for kind, codec in zip(kinds, codecs, strict=True)}
    only = [codec for kind, codec in of.items() if kind is not NoneType]
    if len(only) == 1:
        (one,) = only
        return (lambda value: None if value is None else one[0](value)), (
            lambda value: None if value is None else one[1](value)
        )

    def read(value: Any) -> Any:
        codec = of.get({type(None): NoneType, list: tuple}.get(type(value), type(value)))
        if codec is None:
            raise Malformed("it is of a type that it cannot have")
        return codec[1](value)

    return (lambda value: of[type(value)][0](value)), read


def _many(make: Callable[[Iterable[Any]], Any], write: Write, read: Read) -> tuple[Write, Read]:
    def write_all(values: Iterable[Any]) -> list[Any]:
        written = [write(one) for one in values]
        return written if make is tuple else sorted(written, key=repr)  # sets have no order

    return write_all, (lambda data: make(read(one) for one in _items(data)))


def _fixed(
    make: Callable[[Iterable[Any]], Any],
    codecs: list[tuple[Write, Read]],
    holds: Callable[[Any], bool] | None = None,
    defaults: Sequence[Any] = (),
) -> tuple[Write, Read]:
    """Read parts in order; what was written before the last ones were thought of has `defaults` for them."""
    writers, readers = ([codec[part] for codec in codecs] for part in (0, 1))

    def read(data: Any) -> Any:
        missing = len(readers) - len(_items(data))
        if not 0 <= missing <= len(defaults):
            raise Malformed(f"it is no list of {len(readers)}")
        found = [one(value) for one, value in zip(readers, data, strict=False)]
        made = make([*found, *defaults[len(defaults) - missing :]])
        if holds is not None and not holds(made):
            raise Malformed("its parts do not go together")
        return made

    return (lambda value: [one(part) for one, part in zip(writers, value, strict=True)]), read


def _named_tuple(kind: Any, holds: Callable[[Any], bool] | None = None) -> tuple[Write, Read]:
    codecs = [_codec(one) for one in get_type_hints(kind).values()]
    return _fixed(kind._make, codecs, holds, tuple(kind._field_defaults.values()))


def _mapping(is_by_name: bool, key: tuple[Write, Read], value: tuple[Write, Read]) -> tuple[Write, Read]:
    """By name it is an object, else a list of pairs: JSON has no other keys than texts."""

    def write(values: Mapping[Any, Any]) -> Any:
        if is_by_name:
            return {name: value[0](one) for name, one in values.items()}
        return [[key[0](of), value[0](one)] for of, one in values.items()]

    def read(data: Any) -> dict[Hashable, Any]:
        pairs = list(data.items()) if is_by_name and type(data) is dict else _items(data)
        if any(len(pair) != 2 if is_by_name else len(_items(pair)) != 2 for pair in pairs):
            raise Malformed("it is no list of pairs")
        found = {key[1](of): _at(of, value[1], one) if is_by_name else value[1](one) for of, one in pairs}
        if len(found) != len(pairs):
            raise Malformed("a key is there twice")
        return found

    return write, read


def _object(kind: Any) -> tuple[Write, Read]:
    hints = get_type_hints(kind)
    codecs = {one.name: _codec(hints[one.name]) for one in fields(kind)}
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}

    def write(value: Any) -> dict[str, Any]:
        return {name: codec[0](getattr(value, name)) for name, codec in codecs.items()}

    def read(data: Any) -> Any:
        if type(data) is not dict:
            raise Malformed("it is no object")
        for name in sorted(needed - data.keys()):
            raise Malformed("it is missing", name)
        for name in sorted(data.keys() - codecs.keys()):
            raise Malformed("it is not known", name[:_NAME])
        return kind(**{name: _at(name, codecs[name][1], value) for name, value in data.items()})

    return write, read


_PLAIN: Final[Mapping[Any, tuple[Write, Read]]] = {
    str: (_same, _text),
    int: (_same, _integer),
    bool: (_same, _flag),
    float: (_same, _moment),
    bytes: (bytes.hex, _octets),
    NoneType: (_same, _nothing),
}
_LOOK: Final = _object(Look)
