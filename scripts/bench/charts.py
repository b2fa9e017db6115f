"""Charts of the measurements, from docs/bench/*.json to *.png: `python -m scripts.bench.charts [NAME…]`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

FOLDER = Path(__file__).parents[2] / "docs" / "bench"
if TYPE_CHECKING:
    from collections.abc import Iterator

OURS, OTHERS, LIMIT = "#1f6feb", "#9aa4b2", "#d0d7de"
_INCHES = (8, 3.6)


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())["rows"]


@contextmanager
def _figure(name: str, inches: tuple[float, float] = _INCHES, parts: int = 1) -> Iterator[Any]:
    """Yield axes, one above the other, and save the figure."""
    figure, axes = plt.subplots(parts, sharex=True, squeeze=False, figsize=inches)
    yield axes[:, 0]
    for part in axes[:, 0]:
        part.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


@contextmanager
def _chart(name: str, title: str) -> Iterator[Any]:
    """Give the axes of a chart that has a title."""
    with _figure(name) as (axes,):
        yield axes
        axes.set_title(title)


def receiving() -> None:
    """How many callbacks are acknowledged a second, by contender."""
    results = [row for row in rows("receiving") if (row["connections"], row["groups"]) == (32, 5_000)]
    names, rates = [row["name"] for row in results], [row["rate"] for row in results]
    with _chart("receiving", "Callbacks acknowledged per second, 32 connections, 5,000 groups") as axes:
        colours = [
            LIMIT if name == "ceiling" else OURS if name.startswith(("ours", "receiver")) else OTHERS for name in names
        ]
        bars = axes.barh(names[::-1], rates[::-1], color=colours[::-1])
        axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates[::-1]], padding=4)
        axes.set_xlim(right=max(rates) * 1.15)


def asking() -> None:
    """Questions a second beside a server that only sends as many bytes."""
    results = [row for row in rows("asking") if row["question"] != "a page of groups"]
    places = range(len(results))
    with _chart("asking", "Answers per second, one core, 32 connections, read model unchanged") as axes:
        for shift, which, colour, label in (
            (-0.27, "ceiling", LIMIT, "only sends the bytes"),
            (0, "small", OURS, "ours, small database"),
            (0.27, "large", "#79b8ff", "ours, 100,000 groups, a million events"),
        ):
            axes.bar(
                [place + shift for place in places], [row[which] for row in results], 0.25, color=colour, label=label
            )
        axes.set_xticks(list(places), [row["question"] for row in results], fontsize=8)
        axes.legend(frameon=False, fontsize=8)


def rebuild() -> None:
    """Events a second against the length of the log."""
    results = rows("rebuild")
    with _chart("rebuild", "Rebuilding the read model: events per second against the length of the log") as axes:
        for which, colour, label in (
            ("two", OURS, "ours, 2 cores"),
            ("one", "#79b8ff", "ours, 1 core"),
            ("stock", OTHERS, "stock"),
        ):
            axes.loglog(
                [row["events"] for row in results], [row[which] for row in results], "o-", color=colour, label=label
            )
        axes.set_xlabel("events in the log")
        axes.legend(frameon=False, fontsize=8)


def callback() -> None:
    """Where one callback's time goes, before and after, beside a server that only parses and answers."""
    results = json.loads((FOLDER / "callback.json").read_text())
    ceiling, results = results["ceiling"], results["rows"]
    with _chart("callback", "Microseconds of the receiver's core per callback") as axes:
        axes.axvline(ceiling, color=OTHERS, linestyle="--", label=f"ceiling: {ceiling}")
        left = [0.0, 0.0]
        shades = plt.get_cmap("Blues")
        for number, row in enumerate(results):
            widths = [row["after"], row["before"]]
            axes.barh(
                ["after", "before"],
                widths,
                left=left,
                color=shades(0.9 - number / len(results) * 0.75),
                label=row["part"],
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))


def soak() -> None:
    """Memory, lag and rate over the minutes of a soak."""
    results = rows("soak")
    minutes = [row["seconds"] / 60 for row in results]
    window = 10
    rates = [
        (results[at]["head"] - results[at - window]["head"])
        / (results[at]["seconds"] - results[at - window]["seconds"])
        for at in range(window, len(results))
    ]
    with _figure("soak", (8, 6), parts=3) as (memory, lag, rate):
        memory.plot(minutes, [row["rss_mb"] for row in results], color=OURS)
        memory.set_ylabel("memory, MB")
        memory.set_ylim(0, 200)
        lag.plot(minutes, [row["lag_events"] for row in results], color=OURS, linewidth=0.6)
        lag.set_ylabel("lag, events")
        lag.set_ylim(bottom=0)
        rate.plot(minutes[window:], rates, color=OURS)
        rate.set_ylabel("recorded per second")
        rate.set_ylim(bottom=0)
        rate.set_xlabel("minutes of mixed traffic")


if __name__ == "__main__":
    known = {chart.__name__: chart for chart in (receiving, asking, rebuild, callback, soak)}
    for name in sys.argv[1:] or known:
        known[name]()
