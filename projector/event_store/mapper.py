"""Events as the event-sourcing library stores them: a fixed topic, and JSON as state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from eventsourcing.persistence import InfrastructureFactory, Mapper, MapperDeserialisationError, StoredEvent

from projector.domain.events import TYPES, UndecodableEvent
from projector.event_store import StoreUnavailable

if TYPE_CHECKING:
    from projector.domain.events import Event
    from projector.event_store import Quarantined

MAPPER_TOPIC: Final = "projector.event_store.mapper:EventMapper"
"""By which the library's factories find the mapper."""

_DECODERS: Final = {topic: msgspec.json.Decoder(event_type) for topic, event_type in TYPES.items()}
_encode: Final = msgspec.json.Encoder().encode


class EventMapper(Mapper[str]):
    """Maps our events to stored events and back, through the library's compressor and cipher where set."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """Return the event in its stored form; the version, 0 here, is given by the recorder that appends it."""
        return StoredEvent(domain_event.group_id, 0, domain_event.TOPIC, self.seal(_encode(domain_event)))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Return the event that was stored. Raises MapperDeserialisationError."""
        return self.decode(stored_event.topic, stored_event.state)

    def decode(self, topic: str, state: bytes) -> Event:
        """Return the event whose topic and state these are. Raises MapperDeserialisationError."""
        try:
            return _DECODERS[topic].decode(self.unseal(state))
        except Exception as error:
            reason = "this version knows no such event" if topic not in _DECODERS else str(error)
            raise MapperDeserialisationError(f"cannot decode {topic}: {reason}") from error

    def decode_or_mark(self, group_id: str, topic: str, state: bytes) -> Event:
        """Return the event or, if this version cannot decode it or it is another group's, one that says so."""
        try:
            event = self.decode(topic, state)
        except MapperDeserialisationError as error:
            reason = str(error)
        else:
            if event.group_id == group_id:
                return event
            reason = "it is of another group than the stream it stands in"
        return UndecodableEvent(group_id=group_id, occurred_at=0, recorded_at=0, stored_type=topic, reason=reason)

    def seal(self, data: bytes) -> bytes:
        """Compress and encrypt, as far as set."""
        if self.compressor:
            data = self.compressor.compress(data)
        return self.cipher.encrypt(data) if self.cipher else data

    def unsealed(self, entry: Quarantined) -> Quarantined:
        """Return what is in the quarantine with its body as it came. Raises StoreUnavailable."""
        try:
            return entry._replace(body=self.unseal(bytes(entry.body)))
        except Exception as error:
            reason = f"the body of {entry.id} in the quarantine cannot be decoded ({error}); is CIPHER_KEY what it was?"
            raise StoreUnavailable(reason) from error

    def unseal(self, data: bytes) -> bytes:
        """Undo `seal`."""
        if self.cipher:
            data = self.cipher.decrypt(data)
        return self.compressor.decompress(data) if self.compressor else data


def mapper_of(factory: InfrastructureFactory[Any]) -> EventMapper:
    """Return the mapper with the compressor and the cipher that a factory is set to. Raises StoreUnavailable."""
    try:
        mapper: Any = factory.mapper()
    except Exception as error:
        raise StoreUnavailable(f"COMPRESSOR_TOPIC, CIPHER_TOPIC or CIPHER_KEY cannot be used: {error}") from error
    assert isinstance(mapper, EventMapper)
    return mapper
