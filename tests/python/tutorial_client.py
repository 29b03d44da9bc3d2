"""The client of the tutorial that kvd grew out of, and a few objects to send through it.

    tutorial_client.py ENDPOINT store      stores every object with every pickle protocol
    tutorial_client.py ENDPOINT fetch      fetches them again and compares

The class below is the tutorial's: a REQ socket, a pickled tuple, `ok` for a set and a pickle for a get.
"""

import datetime
import decimal
import pickle
import sys

import zmq


class SuperCacher:
    """A cache behind a socket."""

    def __init__(self, address, protocol=pickle.DEFAULT_PROTOCOL):
        self.protocol = protocol
        self.context = zmq.Context.instance()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.connect(address)

    def set(self, key, data):
        self.socket.send(pickle.dumps(("set", key, data), self.protocol))
        return self.socket.recv() == b"ok"

    def get(self, key):
        self.socket.send(pickle.dumps(("get", key, None), self.protocol))
        return pickle.loads(self.socket.recv())


class Point:
    """An ordinary class of the client's own."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is Point and (self.x, self.y) == (other.x, other.y)

    def __repr__(self):
        return f"Point({self.x!r}, {self.y!r})"


class Slotted:
    """A class that pickles itself through a state of its own."""

    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name

    def __getstate__(self):
        return {"name": self.name}

    def __setstate__(self, state):
        self.name = state["name"]

    def __eq__(self, other):
        return type(other) is Slotted and self.name == other.name


SHARED = ["the same list", "twice"]

OBJECTS = {
    "none": None,
    "true": True,
    "int": 42,
    "negative": -1,
    "large int": 3**500,
    "float": 1.5,
    "empty str": "",
    "str": "Grüße, 世界, \N{SNOWMAN}",
    "long str": "x" * 100_000,
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "long bytes": b"\x00\xff" * 100_000,
    "bytearray": bytearray(b"mutable"),
    "tuple": (),
    "triple": (1, 2, 3),
    "list": [1, [2, [3, []]]],
    "many": list(range(5_000)),
    "set": {1, 2, 3},
    "frozenset": frozenset("abc"),
    "nested dict": {"a": {"b": {"c": [1, {"d": None}]}}, 1: "one", (1, 2): "pair"},
    "datetime": datetime.datetime(2024, 2, 29, 12, 30, 45, 123456, tzinfo=datetime.timezone.utc),
    "date": datetime.date(1999, 12, 31),
    "timedelta": datetime.timedelta(days=1, microseconds=5),
    "decimal": decimal.Decimal("3.14159"),
    "point": Point(1, [2, 3]),
    "points": [Point(n, str(n)) for n in range(10)],
    "slotted": Slotted("s"),
    "class": Point,
    "shared": [SHARED, SHARED],
    "get": "a key that is a verb",
    "set ": "nearly one",
}

# Python's equality is the key's: `1`, `1.0` and `True` are one key.
KEYS = [7, -7, 2**70, 1.5, None, b"bytes", b"", "", "str", ("a", 1, None), (), (1, (2, (b"3",)))]


def key_of(protocol, name):
    return f"{protocol}/{name}"


def store(address):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        cache = SuperCacher(address, protocol)
        assert cache.get(f"absent/{protocol}") is None
        for name, value in OBJECTS.items():
            assert cache.set(key_of(protocol, name), value), f"protocol {protocol}: {name} was not stored"
            assert cache.get(key_of(protocol, name)) == value
        for key in KEYS:
            if key == "":
                continue
            assert cache.set((protocol, key), ("value of", key)), f"protocol {protocol}: key {key!r}"
            if isinstance(key, (int, float, bytes, type(None), tuple)):
                assert cache.set(key, ("alone", key)), f"protocol {protocol}: key {key!r}"
        # A key that equals the verb is one object with it, which pickle writes as a reference to the first.
        assert cache.set("set", "a verb") and cache.set("get", "another")
        assert cache.get("set") == "a verb" and cache.get("get") == "another"
    cache = SuperCacher(address)
    assert cache.set(1, "one") and cache.get(True) == "one" and cache.get(1.0) == "one"
    assert cache.get("1") is None, "a number is not its text"


def fetch(address):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        # What one protocol stored, any other fetches.
        for asked_with in (0, 2, protocol, pickle.HIGHEST_PROTOCOL):
            cache = SuperCacher(address, asked_with)
            for name, value in OBJECTS.items():
                fetched = cache.get(key_of(protocol, name))
                assert fetched == value, f"protocol {protocol} asked with {asked_with}: {name} is {fetched!r:.200}"
                assert type(fetched) is type(value)
            for key in KEYS:
                if key == "":
                    continue
                assert cache.get((protocol, key)) == ("value of", key), f"protocol {protocol}: key {key!r}"
        shared = SuperCacher(address, protocol).get(key_of(protocol, "shared"))
        assert shared[0] is shared[1], "one object that is referred to twice stays one object"
    for key in KEYS:
        if isinstance(key, (int, float, bytes, type(None), tuple)):
            assert SuperCacher(address).get(key) == ("alone", key)
    assert SuperCacher(address).get(True) == "one"


if __name__ == "__main__":
    {"store": store, "fetch": fetch}[sys.argv[2]](sys.argv[1])
