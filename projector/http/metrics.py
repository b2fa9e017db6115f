"""Numbers for Prometheus: counted as callbacks come, and read off the store when scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from projector.event_store import StoreUnavailable
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from projector.event_store.spool import SpoolStatus
    from projector.health import Health

_RESULTS: Final = ("recorded", "repeated", "spooled", "ignored", "refused", "too_large", "quarantined", "unavailable")
_MAX_COMMANDS: Final = 100
_MAX_COMMAND_LENGTH: Final = 100
"""Names beyond these are counted together: a sender may make up as many, and as long ones, as it likes."""


class Metrics:
    """The counters of one process. `health`, and the spool if there is one, are asked at each scrape."""

    def __init__(self, health: Callable[[], Health], spooled: Callable[[], SpoolStatus] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_HealthCollector(health, spooled))
        self._callbacks = Counter(
            "projector_callbacks", "Callbacks answered, by what became of them.", ["result"], registry=self.registry
        )
        self._ignored = Counter(
            "projector_ignored_callbacks", "Acknowledged and not recorded.", ["command"], registry=self.registry
        )
        self.future_event_times = Counter(
            "projector_future_event_times", "EventTimes too far ahead to be believed.", registry=self.registry
        )
        self.append_seconds = Histogram(
            "projector_append_seconds",
            "From a callback's body to its event being durable.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2),
            registry=self.registry,
        )
        self._commands: set[str] = set()
        self._results = {result: self._callbacks.labels(result) for result in _RESULTS}

    def count(self, result: str) -> None:
        """Count a callback by what became of it."""
        self._results[result].inc()

    def count_ignored(self, command: str) -> None:
        """Count a command that is acknowledged and not recorded."""
        if len(self._commands) < _MAX_COMMANDS and len(command) <= _MAX_COMMAND_LENGTH:
            self._commands.add(command)
        self._ignored.labels(command if command in self._commands else "(other)").inc()
        self.count("ignored")

    def exposition(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        return generate_latest(self.registry)


class _HealthCollector(Collector):
    def __init__(self, health: Callable[[], Health], spooled: Callable[[], SpoolStatus] | None) -> None:
        self._health = health
        self._spooled = spooled

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: asking at registration would need the store."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges as they are now; while the store is away, those of the spool."""
        if self._spooled:
            spooled = self._spooled()
            yield GaugeMetricFamily("projector_spool_events", "Events that wait for the store.", value=spooled.depth)
            yield GaugeMetricFamily("projector_spool_seconds", "How long the oldest waits.", value=spooled.age_s())
        try:
            health = self._health()
        except (StoreUnavailable, ReadModelUnavailable):
            if self._spooled:
                return
            raise
        yield GaugeMetricFamily("projector_head_position", "The newest event's position.", value=health.head)
        lag = GaugeMetricFamily("projector_lag_events", "Events not yet projected.", labels=["projection"])
        set_aside = GaugeMetricFamily("projector_set_aside_events", "Events set aside.", labels=["projection"])
        for projection, position in health.positions.items():
            lag.add_metric([projection], max(0, health.head - position))
            set_aside.add_metric([projection], sum(note.projection == projection for note in health.notes))
        yield lag
        yield set_aside
        yield GaugeMetricFamily(
            "projector_lag_seconds", "How long the oldest such event has waited.", value=health.lag_ms / 1000
        )
        yield GaugeMetricFamily("projector_quarantine", "Unreadable callbacks waiting.", value=health.quarantined)
