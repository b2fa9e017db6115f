"""Metrics for Prometheus: counted as callbacks arrive, or read from the databases at each scrape."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from projector.clock import now_ms
from projector.event_store import StoreUnavailable
from projector.event_store.reconciliations import Totals
from projector.event_store.spool import SpoolStatus
from projector.health import Health
from projector.processes.board import Board
from projector.read_model import ReadModelUnavailable

_RESULTS: Final = ("recorded", "repeated", "spooled", "ignored", "refused", "too_large", "quarantined", "unavailable")
_MAX_COMMANDS: Final = 100
_MAX_COMMAND_LENGTH: Final = 100
"""More names, and longer ones, are counted as `(other)`: a sender can invent any number of them."""


class Metrics:
    """The metrics of one `serve`. `health` and `spooled`, None without a spool, are called at each scrape."""

    def __init__(self, health: Callable[[], Health], spooled: Callable[[], SpoolStatus] | None, board: Board) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_HealthCollector(health, spooled))
        self.registry.register(_ProcessCollector(board))
        self._callbacks = Counter(
            "projector_callbacks", "Callbacks received, by result.", ["result"], registry=self.registry
        )
        self._ignored = Counter(
            "projector_ignored_callbacks",
            "Callbacks acknowledged but not recorded, by command.",
            ["command"],
            registry=self.registry,
        )
        self.future_event_times = Counter(
            "projector_future_event_times",
            "Callbacks whose EventTime was too far in the future and was replaced by the time of receipt.",
            registry=self.registry,
        )
        self.oversized_values = Counter(
            "projector_oversized_values",
            "Values that are larger than their limit, and count as null.",
            registry=self.registry,
        )
        self.append_seconds = Histogram(
            "projector_append_seconds",
            "Time from a callback's body to its durable event, in seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2),
            registry=self.registry,
        )
        self._commands: set[str] = set()
        self._results = {result: self._callbacks.labels(result) for result in _RESULTS}

    def count(self, result: str) -> None:
        self._results[result].inc()

    def count_ignored(self, command: str) -> None:
        """Count a callback that is acknowledged but not recorded."""
        if len(self._commands) < _MAX_COMMANDS and len(command) <= _MAX_COMMAND_LENGTH:
            self._commands.add(command)
        self._ignored.labels(command if command in self._commands else "(other)").inc()
        self.count("ignored")

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _ProcessCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("projector_process_running", "Whether a process is running.", labels=["process"])
        restarts = CounterMetricFamily(
            "projector_process_restarts", "How often a process died and was started again.", labels=["process"]
        )
        for name, state in self._board.states().items():
            running.add_metric([name], int(state.pid is not None))
            restarts.add_metric([name], state.restarts)
        return (running, restarts)


class _HealthCollector(Collector):
    def __init__(self, health: Callable[[], Health], spooled: Callable[[], SpoolStatus] | None) -> None:
        self._health = health
        self._spooled = spooled

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing, so that registering does not read the databases."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the current gauges; while the database is unavailable, those of the spool only."""
        if self._spooled:
            spooled = self._spooled()
            yield GaugeMetricFamily("projector_spool_events", "Entries in the spool.", value=spooled.depth)
            yield GaugeMetricFamily(
                "projector_spool_seconds", "Age of the oldest entry in the spool, in seconds.", value=spooled.age_s()
            )
            yield GaugeMetricFamily(
                "projector_spool_set_aside", "Entries in the spool that cannot be decoded.", value=spooled.set_aside
            )
        try:
            health = self._health()
        except (StoreUnavailable, ReadModelUnavailable):
            if self._spooled:
                return
            raise
        yield GaugeMetricFamily("projector_head_position", "Position of the newest event.", value=health.head)
        lag = GaugeMetricFamily(
            "projector_lag_events", "Events not yet projected, by projection.", labels=["projection"]
        )
        set_aside = GaugeMetricFamily(
            "projector_set_aside_events", "Events set aside, by projection.", labels=["projection"]
        )
        for projection, position in health.positions.items():
            lag.add_metric([projection], max(0, health.head - position))
            set_aside.add_metric([projection], len(health.set_aside_by(projection)))
        yield lag
        yield set_aside
        yield GaugeMetricFamily(
            "projector_lag_seconds",
            "Age of the oldest event not yet projected, in seconds.",
            value=health.lag_ms / 1000,
        )
        yield GaugeMetricFamily(
            "projector_quarantine", "Unreadable callbacks in the quarantine.", value=health.quarantined
        )
        if health.reconciliation:
            yield from _of_reconciliation(health.reconciliation.totals())
        if health.oldest_comparison_ms is not None:
            yield GaugeMetricFamily(
                "projector_oldest_comparison_seconds",
                "Time since the group was compared with the REST API that has waited longest, in seconds.",
                value=(now_ms() - health.oldest_comparison_ms) / 1000,
            )


def _of_reconciliation(totals: Totals) -> Iterable[Metric]:
    drift = CounterMetricFamily("projector_drift", "Differences found by reconciling, by kind.", labels=["kind"])
    corrections = CounterMetricFamily("projector_corrections", "Differences corrected, by kind.", labels=["kind"])
    for kind in totals.found:
        drift.add_metric([kind], totals.found[kind])
        corrections.add_metric([kind], totals.corrected.get(kind, 0))
    requests = CounterMetricFamily(
        "projector_rest_requests", "Requests to the REST API, by command and code.", labels=["command", "code"]
    )
    for command, codes in totals.requests.items():
        for code, number in codes.items():
            requests.add_metric([command, code], number)
    yield from (drift, corrections, requests)
    if totals.finished_at is not None:
        yield GaugeMetricFamily(
            "projector_reconciled_seconds",
            "Time since the last complete run finished, in seconds.",
            value=(now_ms() - totals.finished_at) / 1000,
        )
