"""Plots of what `make bench-peers` measured: reads results.json, writes PNG files beside it.

Knows the records that benches/peers writes, and nothing of how they came about.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# One colour a server, whatever else is in the picture.
COLOURS = {
    "kvd": "#0b6e4f",
    "kvd 1s": "#6bbf9c",
    "Redis": "#b3261e",
    "Redis everysec": "#e58f88",
    "memcached": "#3a6ea5",
    "bare ROUTER": "#9a9a9a",
}
FALLBACK = "#555555"


def servers_of(records):
    """The servers of the records, in the order in which they come."""
    return list(dict.fromkeys(record["server"] for record in records))


def bars(axes, records, group, value, unit, logarithmic=False):
    """Bars in groups, one a server."""
    groups = list(dict.fromkeys(record[group] for record in records))
    servers = servers_of(records)
    width = 0.8 / len(servers)
    for place, server in enumerate(servers):
        heights = {record[group]: record[value] for record in records if record["server"] == server}
        positions = [index + (place - (len(servers) - 1) / 2) * width for index in range(len(groups))]
        heights = [heights.get(name, 0) for name in groups]
        axes.bar(positions, heights, width, label=server, color=COLOURS.get(server, FALLBACK))
    axes.set_xticks(range(len(groups)), groups, rotation=20, ha="right")
    axes.set_ylabel(unit)
    if logarithmic:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    axes.grid(axis="y", alpha=0.3)


def lines(axis, records, horizontal, vertical):
    """A line a server."""
    for server in servers_of(records):
        points = sorted((horizontal(record), vertical(record)) for record in records if record["server"] == server)
        axis.plot(*zip(*points), marker="o", label=server, color=COLOURS.get(server, FALLBACK))
    axis.set_xscale("log")
    axis.grid(alpha=0.3)


def mebibytes(rate):
    """Bytes a second of a record, whose rate has this name."""
    return lambda record: record[rate] * record["value"] / 2**20


def loads(records, pictures):
    """Commands a second, SETs and GETs apart, the mixes in a picture of their own."""
    kinds = {0: "SET", 100: "GET"}
    figure, axes = plt.subplots(3, 1, figsize=(11, 13))
    for axis, (name, chosen) in zip(
        axes,
        [(kinds[0], [0]), (kinds[100], [100]), ("GET and SET mixed", set(range(1, 100)))],
    ):
        part = [record for record in records if record["reads_percent"] in chosen]
        if part:
            bars(axis, part, "load", "commands_per_second", "commands a second")
        axis.set_title(f"{name}, values of 100 bytes (peers x in flight)")
    pictures.save(figure, "loads")


def packed(records, pictures):
    """Packed messages beside pipelines."""
    figure, axes = plt.subplots(figsize=(9, 5))
    bars(axes, records, "load", "commands_per_second", "commands a second")
    axes.set_title("Packed messages of kvd, pipelines of as many commands elsewhere")
    pictures.save(figure, "packed")


def sizes(records, bandwidth, pictures):
    """Bytes a second by the length of values, beside what the disk and loopback can do."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    limits = {0: "write and fdatasync", 100: "echo over loopback"}
    for axis, (percent, limit) in zip(axes, limits.items()):
        part = [record for record in records if record["reads_percent"] == percent]
        lines(axis, part, lambda record: record["value"], mebibytes("commands_per_second"))
        points = sorted((record["value"], mebibytes("per_second")(record)) for record in bandwidth if record["what"] == limit)
        if points:
            axis.plot(*zip(*points), linestyle="--", color="black", label=f"{limit}, one at a time")
        axis.set(yscale="log", xlabel="bytes of a value", title="GET" if percent else "SET")
        axis.legend(fontsize="small")
    axes[0].set_ylabel("MiB a second")
    pictures.save(figure, "sizes")


def half(records, pictures):
    """Latency at half of saturation."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for axis, (value, name) in zip(axes, [("p50_us", "p50"), ("p99_us", "p99")]):
        bars(axis, records, "load", value, "microseconds", logarithmic=True)
        axis.set_title(f"{name} at half of what the slowest reaches")
    pictures.save(figure, "half")


def scale(records, pictures):
    """Processor time a command, and rates, by the number of keys."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    for row, operation in zip(axes, ["get", "set"]):
        for axis, (value, unit) in zip(
            row, [("commands_per_second", "commands a second"), ("server_cpu_us", "microseconds of processor time")]
        ):
            part = [record for record in records if record["operation"] == operation]
            lines(axis, part, lambda record: record["keys"], lambda record: record[value])
            axis.set(xlabel="keys", ylabel=unit, title=operation.upper())
            axis.set_ylim(bottom=0)
            axis.legend(fontsize="small")
    pictures.save(figure, "scale")


def pauses(records, pictures):
    """The longest waits of a steady reader."""
    figure, axes = plt.subplots(2, 1, figsize=(11, 10))
    for axis, (value, name) in zip(axes, [("p99_9_ms", "p99.9"), ("max_ms", "longest")]):
        bars(axis, records, "beside", value, "milliseconds", logarithmic=True)
        axis.set_title(f"{name} wait of 1,000 GET/s")
    pictures.save(figure, "pauses")


class Pictures:
    """Where they go."""

    def __init__(self, directory):
        self.directory = directory

    def save(self, figure, name):
        figure.tight_layout()
        figure.savefig(self.directory / f"{name}.png", dpi=110)
        plt.close(figure)
        print(self.directory / f"{name}.png")


def main():
    source = pathlib.Path(sys.argv[1])
    results = json.loads(source.read_text())
    pictures = Pictures(source.parent)
    for name, plot in [("loads", loads), ("packed", packed), ("half", half), ("scale", scale), ("pauses", pauses)]:
        if name in results:
            plot(results[name], pictures)
    if "sizes" in results:
        sizes(results["sizes"], results.get("bandwidth", []), pictures)


if __name__ == "__main__":
    main()
