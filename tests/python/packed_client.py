"""A client of the packed dialect, written from docs/protocol.md and nothing else.

    packed_client.py ENDPOINT      sets, gets, gets errors, and compares
"""

import struct
import sys

import zmq


def number(value):
    if value <= 250:
        return bytes([value])
    for mark, form, most in ((251, "<H", 1 << 16), (252, "<I", 1 << 32), (253, "<Q", 1 << 64)):
        if value < most:
            return bytes([mark]) + struct.pack(form, value)
    raise OverflowError(value)


def signed(value):
    return number(2 * value if value >= 0 else -2 * value - 1)


def blob(value):
    return number(len(value)) + value


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        assert self.at <= len(self.data)
        return self.data[self.at - length : self.at]

    def number(self):
        first = self.take(1)[0]
        form = {251: "<H", 252: "<I", 253: "<Q"}.get(first)
        return struct.unpack(form, self.take(struct.calcsize(form)))[0] if form else first

    def signed(self):
        value = self.number()
        return -(value + 1) // 2 if value % 2 else value // 2

    def blob(self):
        return self.take(self.number())

    def reply(self):
        match self.number():
            case 2:
                return "stored", self.number()
            case 3:
                return "number", self.signed()
            case 4:
                return ("miss",)
            case 5:
                return ("exists",)
            case 7:
                return "value", self.blob(), self.number(), self.number()
            case 12:
                return "error", self.blob().decode(), self.blob().decode()
            case other:
                raise ValueError(f"reply {other}")


class Client:
    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.connect(endpoint)

    def ask(self, *commands):
        self.socket.send(b"\x01" + number(len(commands)) + b"".join(commands))
        reader = Reader(self.socket.recv())
        assert reader.take(1) == b"\x01"
        replies = [reader.reply() for _ in range(reader.number())]
        assert reader.at == len(reader.data)
        return replies


def get(key):
    return number(1) + blob(key)


def set_(key, value, expiry=b"\x00", condition=b"\x00", flags=0):
    return number(2) + blob(key) + blob(value) + expiry + condition + number(flags)


def increment(key, delta):
    return number(7) + blob(key) + signed(delta)


if __name__ == "__main__":
    client = Client(sys.argv[1])
    large = b"v" * 70_000
    (kind, version), *replies = client.ask(
        set_(b"from-python", b"packed"),
        get(b"from-python"),
        get(b"absent"),
        set_(b"large", large, expiry=number(1) + number(1 << 40), condition=number(1), flags=1 << 31 | 300),
        get(b"large"),
        set_(b"large", b"", condition=number(1)),
        increment(b"n", -200),
        increment(b"n", 70_200),
    )
    assert kind == "stored"
    assert replies == [
        ("value", b"packed", version, 0),
        ("miss",),
        ("stored", version + 1),
        ("value", large, version + 1, 1 << 31 | 300),
        ("exists",),
        ("number", -200),
        ("number", 70_000),
    ], replies
    # One that is refused leaves the others as they are; bytes that are no list are refused as a whole.
    refused = client.ask(increment(b"from-python", 1), get(b""), get(b"n"))
    assert [reply[:2] for reply in refused] == [("error", "NOTINT"), ("error", "BADARG"), ("value", b"70000")], refused
    assert [reply[:2] for reply in client.ask(get(b"n"), number(99))] == [("error", "BADCMD")]
    assert [reply[:2] for reply in client.ask(get(b"n"), get(b"n")[:-1])] == [("error", "BADARG")]
    print("sets, gets and errors are as the page says")
