"""Makes pickled requests with CPython's own picklers, and judges what kvd made of them with its unpicklers.

Knows Python objects and their equality; knows nothing of how kvd walks a pickle. `tests/it/pickle.rs` starts it
once and talks with it over stdin and stdout, in frames of a four-byte little-endian length and that many bytes:

    b"round trip", key class, get, set     what is a request; answered by: stored value, space, key
    b"refused", what it is, message        what is none; not answered
    b"mutant", message                     what may be one; answered by: get or set or refused, value, space, key
    b"end", number of cases

Two keys have the same key class exactly when a Python dict takes them for one. A mismatch ends the script with an
AssertionError.

    make_pickles.py                        talk
    make_pickles.py seeds DIRECTORY        write small requests, one a file, for the fuzzer to start from
"""

import array
import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import os
import pathlib
import pickle
import pickletools
import random
import re
import struct
import sys
import uuid

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

# --- objects ---------------------------------------------------------------------------------------------------


class Point:
    """Pickled by copying its `__dict__`."""

    def __init__(self, x=0, y=0):
        self.x, self.y = x, y


class Slotted:
    __slots__ = ("left", "right")


class Stateful:
    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return ("state of", self.state)

    def __setstate__(self, state):
        self.state = state[1]


class Reducing:
    """Pickled as a call, a state, items to append and items to set."""

    def __init__(self, *arguments):
        self.arguments, self.appended, self.items, self.extra = arguments, [], {}, None

    def append(self, item):
        self.appended.append(item)

    def extend(self, items):
        self.appended.extend(items)

    def __setitem__(self, key, value):
        self.items[key] = value

    def __reduce__(self):
        return Reducing, self.arguments, {"extra": self.extra}, iter(self.appended), iter(self.items.items())


class Keyworded(str):
    """Needs keywords to be made: NEWOBJ_EX."""

    def __new__(cls, *, text):
        return super().__new__(cls, text)

    def __getnewargs_ex__(self):
        return (), {"text": str(self)}


class ListOfMine(list):
    pass


class DictOfMine(dict):
    pass


class IntOfMine(int):
    pass


class StrOfMine(str):
    pass


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 1


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True)
class Record:
    name: str
    tags: tuple


class Extension1:
    pass


class Extension2:
    pass


class Extension4:
    pass


copyreg.add_extension("__main__", "Extension1", 0xF0)
copyreg.add_extension("__main__", "Extension2", 0xFFF0)
copyreg.add_extension("__main__", "Extension4", 0xFFFFF0)


def recursive_list():
    it = [1, "two"]
    it.append(it)
    return it


def recursive_dict():
    it = {"a": 1}
    it["self"] = it
    it["list"] = [it, it]
    return it


def recursive_tuple():
    it = ([], 2, 3, 4)
    it[0].append(it)
    return it


def recursive_short_tuple():
    it = ([],)
    it[0].append(it)
    return it


def recursive_point():
    it = Point()
    it.x, it.y = it, [it, {"it": it}]
    return it


def shared():
    it = ["shared", (1, 2)]
    return [it, it, (it, it[1]), {"it": it}, it[1]]


def reducing():
    it = Reducing("x")
    it.extend(["a", "b"])
    it.items.update(k="v", l="w")
    it.extra = [1, 2]
    return it


def slotted():
    it = Slotted()
    it.left, it.right = 1, [2]
    return it


def nested(depth):
    it = []
    for _ in range(depth):
        it = [it]
    return it


def exception():
    it = ValueError("message", 7)
    it.note = "attribute"
    return it


SMALL_VALUES = [
    None, True, False, 0, 1, -1, 255, 256, 65536, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**200), 2**3000,
    0.0, -0.0, 1.5, 1e300, float("inf"), float("nan"), 1 + 2j,
    "", "text", "get", "set", "Grüße 😀", "\ud800", "back\\slash\nnew\0\x1a", b"", b"bytes", bytes(range(256)),
    bytearray(b"array"), bytearray(), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), tuple(range(50)),
    [], [1], list(range(10)), [[], [[]], [()]], {}, {"a": 1}, {i: str(i) for i in range(20)}, {(1, 2): {3: [4]}},
    set(), {1, 2, 3}, frozenset(), frozenset({"a", ("b",)}), range(3), Ellipsis, NotImplemented,
    datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc), datetime.date(1, 1, 1),
    datetime.timedelta(days=-1, microseconds=5), datetime.timezone(datetime.timedelta(hours=2)), datetime.time(23, 59),
    decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=7), re.compile("a+", re.IGNORECASE),
    array.array("d", [1.5, 2.5]), collections.OrderedDict(b=1, a=2), collections.defaultdict(list, {"a": [1]}),
    collections.deque([1, 2], maxlen=3), collections.Counter("hello"), int, len, os.path.join, Point, exception(),
    Point(1, [2]), slotted(), Stateful({"a": 1}), reducing(), Keyworded(text="kw"), ListOfMine([1, 2]),
    DictOfMine(a=1), IntOfMine(7), StrOfMine("mine"), Colour.RED, Level.HIGH, Pair("l", "r"), Record("n", ("t",)),
    Extension1(), [Extension2(), Extension4()],
    recursive_list(), recursive_dict(), recursive_tuple(), recursive_short_tuple(), recursive_point(), shared(),
    nested(100), [Point(i, "shared" "text") for i in range(5)], ("get", "key", None), ("set", "key", "value"),
]

LARGE_VALUES = [
    "a" * 70_000, "é€😀" * 40_000, b"b" * 65_536, b"c" * 65_530, bytearray(b"d" * 100_000), "e" * (3 << 20),
    b"f" * (2 << 20), ["g" * 70_000, b"h" * 70_000, "i" * 10] * 3, [b"j" * 40_000 + bytes([i]) for i in range(8)],
    list(range(5_000)), {i: [str(i)] for i in range(2_000)}, tuple(range(2_000)), [[i] for i in range(2_000)],
    "\\\n\ud800" * 10_000, (b"k" * 70_000, "end"), {"last": "l" * 70_000}, 7**5_000,
]

STR_KEYS = [
    "k", "key", "get", "set", "latin1", "a b", "user:7", "é", "Grüße", "€", "😀", "\0", "\n", "\r\n\x1a", "\\", "a\\",
    "\\u0041", "\\\\u0041", "\\U0001f600", "\x7f\x80\xff", "\ud800", "a\udfffb", "\ud83d\ude00", "\udc80",
    "x" * 255, "x" * 256, "x" * 65_536, "é" * 32_768, "1", "None", "+\0\x01\x01", "N",
]

OTHER_KEYS = [
    None, True, False, 0, 1, 2, -1, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1,
    2**53, 2**53 + 1, 2**63, -(2**63), 2**64, 2**70, 10**23, 10**30, -(10**30), 2**1023, 2**2039, -(2**2039), 2**2040,
    10**4299, -(10**4299),
    0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 1e16, 1e23, 1e300, 5e-324, 2.0**53, 2.0**70, 2.0**1023, 3.141592653589793,
    float("inf"), float("-inf"), 255.0, 256.0, -(2.0**31),
    b"", b"k", b"a", b"get", b"set", b"latin1", b"1", bytes(range(256)), b"x" * 255, b"x" * 256, b"\n\\\0\x80",
    (), (1,), (1.0,), (True,), (None,), ("k",), (b"k",), (b"",), ("",), ("get",), ("set", "get"), (1, 2), (1, 2, 3),
    (1, 2, 3, 4), (1, (2, (3, (4, ())))), ((), ()), ((),), (((),),), ("a", "a"), (b"a", b"a"), ("a", b"a"),
    (("s",), ("s",)), (("s",),) * 4, (b"x", b"y", b"", b"x", "latin1"), ("\ud800", "é", "\\u0041"),
    (0.5, float("inf"), -0.0, 10**30), tuple(range(300)), ("k", 1, None, True, 0.5, b"k", ("k", (1,))),
    (1, 2, (3,)), (1, (2, 3)), ((1, 2), 3), ("ab", "c"), ("a", "bc"), ("abc",), (2**53 + 1,), (2.0**53,),
]

# What Python's dict would take or refuse, and what kvd refuses: it needs code, or can never be found again.
REFUSED_KEYS = [
    "", [], [1], {}, {"a": 1}, set(), frozenset(), frozenset({1}), bytearray(b"k"), 1j, float("nan"), (float("nan"),),
    range(3), int, len, Point(), Pair(1, 2), Level.HIGH, Colour.RED, IntOfMine(7), StrOfMine("mine"), Ellipsis,
    datetime.date(2024, 1, 1), decimal.Decimal("1"), fractions.Fraction(1, 2), Record("n", ()), ([],), (1, (2, {})),
    (Point,), (1, (IntOfMine(1),)), uuid.UUID(int=1), Extension1(), recursive_tuple(),
]
TOO_BIG_KEYS = ["x" * 65_537, "é" * 32_769, b"x" * 65_536, 256**65_540, ("x" * 40_000,) * 2, tuple(range(30_000))]

# --- picklers and unpicklers -----------------------------------------------------------------------------------


def optimized(item, protocol):
    return pickletools.optimize(pickle.dumps(item, protocol))


def without_fixes(item, protocol):
    return pickle.dumps(item, protocol, fix_imports=False)


PICKLERS = [pickle.dumps, pickle._dumps]
MORE_PICKLERS = [optimized, without_fixes]
UNPICKLERS = [pickle.loads, pickle._loads]


def safe_class(module, name):
    """What a pickle of unknown content may name: enough for the seeds, nothing that could do harm."""
    if (module, name) == ("_codecs", "encode"):
        return lambda text, codec: text.encode("latin1") if codec == "latin1" else 1 / 0
    if name == "bytes" and module in ("__builtin__", "builtins"):
        return lambda *arguments: 1 / 0 if arguments else b""
    if (module, name) == ("__main__", "Point"):
        return Point
    raise pickle.UnpicklingError("not here")


class SafeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        return safe_class(module, name)


class SafePythonUnpickler(pickle._Unpickler):
    def find_class(self, module, name):
        return safe_class(module, name)


# --- equality --------------------------------------------------------------------------------------------------


def same(left, right):
    """Whether two objects are alike in type, content and in which of their parts are one object."""
    partners = {}
    todo = [(left, right)]
    while todo:
        a, b = todo.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, type) or callable(a) and not hasattr(a, "__dict__"):
            if a is not b:
                return False
            continue
        if isinstance(a, float):
            if struct.pack("d", a) != struct.pack("d", b):
                return False
            continue
        if a is None or isinstance(a, (str, bytes, int, complex)) and type(a).__module__ == "builtins":
            if a != b:
                return False
            continue
        if id(a) in partners:
            # Tuples may be rebuilt, the parts of a mutable object may not.
            if partners[id(a)] is not b and not isinstance(a, (tuple, frozenset)):
                return False
            continue
        partners[id(a)] = b
        if isinstance(a, (list, tuple, collections.deque)):
            if len(a) != len(b):
                return False
            todo.extend(zip(a, b))
        elif isinstance(a, dict):
            if len(a) != len(b):
                return False
            todo.extend((pair, other) for pair, other in zip(a.items(), b.items()))
            todo.extend((a[key], b[other]) for key, other in zip(a, b))
        elif type(a).__eq__ is not object.__eq__:
            if a != b:
                return False
        elif isinstance(a, BaseException):
            todo.append((a.args, b.args))
        if hasattr(a, "__dict__") and not isinstance(a, enum.Enum):
            todo.append((vars(a), vars(b)))
        if isinstance(a, Slotted):
            todo.append(((a.left, a.right), (b.left, b.right)))
    return True


def canonical(key):
    """The space and the bytes that kvd's documentation gives a key, made from the key itself."""
    if type(key) is str:
        return 0, key.encode("utf-8", "surrogatepass")
    return 1, encoded(key)


def encoded(key):
    def counted(tag, content):
        return tag + len(content).to_bytes(2, "big") + content

    if key is None:
        return b"N"
    if isinstance(key, float) and not key.is_integer():
        assert key == key
        return b"F" + struct.pack(">d", key)
    if isinstance(key, (int, float)):
        number = abs(int(key))
        return counted(b"-" if key < 0 else b"+", number.to_bytes((number.bit_length() + 7) // 8, "little"))
    if type(key) is bytes:
        return counted(b"B", key)
    if type(key) is str:
        return counted(b"S", key.encode("utf-8", "surrogatepass"))
    assert type(key) is tuple
    return b"".join(map(encoded, key)) + b"T" + len(key).to_bytes(2, "big")


# --- the conversation ------------------------------------------------------------------------------------------


def send(*frames):
    sys.stdout.buffer.write(b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames))


def receive(count):
    sys.stdout.buffer.flush()
    read = sys.stdin.buffer.read
    return [read(int.from_bytes(read(4), "little")) for _ in range(count)]


def told(key, value, dumps, protocol):
    return f"{key!r:.60} = {value!r:.60}, protocol {protocol}, {dumps.__module__}.{dumps.__name__}"


class Talk:
    def __init__(self):
        self.cases = 0
        self.classes = {}

    def round_trip(self, key, value, dumps, protocol, unpicklers=UNPICKLERS):
        key_class = self.classes.setdefault(key, len(self.classes))
        get, set_ = dumps(("get", key, None), protocol), dumps(("set", key, value), protocol)
        send(b"round trip", b"%d" % key_class, get, set_)
        stored, space, kvd_key = receive(3)
        about = key, value, dumps, protocol
        assert (space[0], kvd_key) == canonical(key), f"{told(*about)}: key {space} {kvd_key!r:.100}"
        for loads in unpicklers:
            assert same(value, loads(stored)), f"{told(*about)}: {loads(stored)!r:.100} by {loads}"
        self.cases += 1

    def refused(self, what, message):
        send(b"refused", what.encode("utf-8", "backslashreplace"), message)
        self.cases += 1

    def mutant(self, message):
        send(b"mutant", message)
        kind, value, space, kvd_key = receive(4)
        self.cases += 1
        if kind == b"refused":
            return  # Python may well accept it, and may well take gigabytes that are merely announced.
        for unpickler in (SafeUnpickler, SafePythonUnpickler):
            try:
                request = unpickler(io.BytesIO(message)).load()
            except Exception:
                # Where data can't be loaded, kvd need not know. All of a get is its key, which kvd does know.
                assert kind != b"get", f"a get that Python can't load: {message!r}"
                continue
            assert type(request) is tuple and len(request) == 3, f"{message!r} is {request!r}"
            word, key, data = request
            assert word == kind.decode(), f"{message!r} is {request!r}, not a {kind}"
            assert (space[0], kvd_key) == canonical(key), f"{message!r}: {key!r} is not {kvd_key!r}"
            if kind == b"get":
                assert data is None
            else:
                assert same(data, unpickler(io.BytesIO(value)).load()), f"{message!r} stores something else"


def requests_for_mutants():
    keys = ["key", "set", "\\é\ud800", 7, -300, 1.5, 10**12, None, True, b"", b"k\xff", (1, "a"),
            (b"x", (b"x", "get"), b"")]
    values = [None, 5, "key", [1, [2]], {"a": (1, 2)}, Point(1, ["p"]), recursive_tuple(), shared(), {1, 2}]
    for protocol in PROTOCOLS:
        for key in keys:
            yield pickle.dumps(("get", key, None), protocol)
        for number, value in enumerate(values):
            yield pickle.dumps(("set", keys[number % len(keys)], value), protocol)


def mutated(message, chance):
    message = bytearray(message)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(message))
        kind = chance.randrange(5)
        if kind == 0:
            message[at] = chance.randrange(256)
        elif kind == 1:
            message[at] = chance.choice(opcodes)
        elif kind == 2:
            message.insert(at, chance.choice(opcodes))
        elif kind == 3 and len(message) > 1:
            del message[at]
        else:
            end = min(len(message), at + chance.randrange(1, 8))
            message[at:at] = message[at:end]
    return bytes(message)


def talk():
    sys.set_int_max_str_digits(0)  # Not one of the limits that are looked at here.
    it = Talk()
    few_keys = ["key", "get", "set", 7, b"bytes", ("a", (1, b"x"))]
    for dumps in PICKLERS + MORE_PICKLERS:
        for protocol in PROTOCOLS:
            keys = few_keys if dumps in MORE_PICKLERS else STR_KEYS + OTHER_KEYS
            for number, key in enumerate(keys):
                # The data that is the key itself, and that holds it, refers to the key's memo.
                for value in (key, [key, "set", "get"]):
                    it.round_trip(key, value, dumps, protocol)
                # Long keys and rare ones meet some values, the usual ones meet all.
                step = 1 if key in few_keys else 11
                for value in SMALL_VALUES[number % step :: step]:
                    if protocol >= 2 or not isinstance(value, Slotted):  # Protocols 0 and 1 can't write slots.
                        it.round_trip(key, value, dumps, protocol)
            for value in LARGE_VALUES:
                it.round_trip("key", value, dumps, protocol)
                it.round_trip(("k", 1), value, dumps, protocol, [pickle.loads])
            for key in REFUSED_KEYS:
                it.refused(f"BADARG key {key!r:.40}, protocol {protocol}", dumps(("get", key, None), protocol))
                it.refused(f"BADARG key {key!r:.40}, protocol {protocol}", dumps(("set", key, 1), protocol))
            if protocol > 0:
                for key in TOO_BIG_KEYS:
                    it.refused(f"TOOBIG key {key!r:.40}, protocol {protocol}", dumps(("get", key, None), protocol))
            for request in [("delete", "k", None), ("GET", "k", None), ("", "k", None)]:
                it.refused(f"BADCMD {request}", dumps(request, protocol))
            for request in [None, "get", ["get", "k", None], ("get",), ("get", "k"), ("get", "k", None, None),
                            (b"get", "k", None), ("get", "k", 0), ("get", "k", []), ("set",), ("set", "k"), (), {}]:
                it.refused(f"BADARG {request}", dumps(request, protocol))
    handmade(it)
    chance = random.Random(7)
    for message in requests_for_mutants():
        it.mutant(message)
        for _ in range(100):
            it.mutant(mutated(message, chance))
    send(b"end", b"%d" % it.cases)
    sys.stdout.buffer.flush()


def handmade(it):
    """What no pickler of Python 3 writes, or none without being asked to."""
    for data in [b"(i__main__\nPoint\n", b"(c__main__\nPoint\no", b"(c__main__\nPoint\nI1\nI2\no}b",
                 b"U\x03abc", b"S'abc'\n", b"T\x03\0\0\0abc", b"(I1\nI2\n1N", b"N0N", b"N2\x86",
                 b"(K\x01(K\x02K\x03ee0N", b"((t(ll"]:
        for head in [b"\x80\x02X\x03\0\0\0setK\x01%b\x87.", b"(Vset\nI1\n%bt."]:
            it.mutant(head % data)
    buffers = []
    message = pickle.dumps(("set", "k", pickle.PickleBuffer(b"out of band")), 5, buffer_callback=buffers.append)
    it.refused("BADARG out-of-band buffer", message)
    message = pickle.dumps(("set", "k", pickle.PickleBuffer(b"read only")), 5, buffer_callback=lambda buffer: False)
    it.refused("BADARG out-of-band buffer", message)
    it.round_trip("k", b"in band", lambda item, protocol: pickle.dumps(
        item[:2] + (item[2] and pickle.PickleBuffer(item[2]),), protocol), 5)
    for protocol in PROTOCOLS:
        class Persistent(pickle.Pickler):
            def persistent_id(self, item):
                return "7" if isinstance(item, Point) else None

        into = io.BytesIO()
        Persistent(into, protocol).dump(("set", "k", Point()))
        it.refused("BADARG persistent id", into.getvalue())


# --- seeds -----------------------------------------------------------------------------------------------------


def seeds(directory):
    keys = {"str": "key", "word": "set", "escapes": "\\é\ud800", "int": -300, "long": 10**25, "float": 1.5,
            "none": None, "bool": True, "bytes": b"k\xff", "no-bytes": b"", "tuple": ("a", (1, b"x", "a"), (), 0.5)}
    values = {"int": 5, "list": [1, [2], []], "dict": {"a": (1, 2)}, "object": Point(1, ["p"]),
              "cycle": recursive_tuple(), "shared": shared(), "set": frozenset({1}), "framed": b"z" * 300}
    for protocol in (0, 1, 2, 4, 5):
        for number, (name, key) in enumerate(keys.items()):
            if (number + protocol) % 2 == 0:
                message = pickle.dumps(("get", key, None), protocol)
                pathlib.Path(directory, f"get-{name}-protocol{protocol}").write_bytes(message)
        for number, (name, value) in enumerate(values.items()):
            if (number + protocol) % 2 == 0:
                message = pickle.dumps(("set", list(keys.values())[number], value), protocol)
                pathlib.Path(directory, f"set-{name}-protocol{protocol}").write_bytes(message)


if __name__ == "__main__":
    if sys.argv[1:2] == ["seeds"]:
        seeds(sys.argv[2])
    else:
        talk()
