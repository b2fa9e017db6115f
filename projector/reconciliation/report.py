"""The report of a run, for people."""

from collections.abc import Iterator

from projector.event_store.reconciliations import KindCounts, RunReport
from projector.reconciliation.drift import CALLBACKS

_COLUMNS = ("found", "corrected", "in_flight", "settled_late", "unsettled")


def lines(report: RunReport) -> Iterator[str]:
    """Yield what a run found, a line for each kind of difference, and what to do about it."""
    groups = report.groups
    yield (
        f"run {report.run}: {groups.get('compared', 0)} groups compared, {groups.get('differing', 0)} differed,"
        f" {groups.get('unread', 0)} could not be read; {report.events} events appended"
    )
    if report.learned:
        yield f"  learned: {', '.join(f'{count} {name}' for name, count in sorted(report.learned.items()))}"
    for kind, counts in sorted(report.kinds.items()):
        yield f"  {kind}: {_counts(counts)}{_callback(kind)}"
    for command in report.never_received:
        yield f"  {command} was never received: tick it in the console"
    if not report.kinds:
        yield "  no differences"


def _counts(counts: KindCounts) -> str:
    numbers = [(name.replace("_", " "), getattr(counts, name)) for name in _COLUMNS]
    return ", ".join(f"{number} {name}" for name, number in numbers if number or name == "found")


def _callback(kind: str) -> str:
    return f" (told by {CALLBACKS[kind][1]})" if kind in CALLBACKS else ""
