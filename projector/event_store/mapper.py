"""The stored form of events: a fixed topic and, as state, JSON that may be compressed and encrypted."""

from typing import Any, Final

import msgspec
from eventsourcing.persistence import InfrastructureFactory, Mapper, MapperDeserialisationError, StoredEvent

from projector.domain.events import TYPES, Event, UndecodableEvent
from projector.event_store import StoreUnavailable

MAPPER_TOPIC: Final = "projector.event_store.mapper:EventMapper"
"""The name by which the library's factories find the mapper."""

_DECODERS: Final = {topic: msgspec.json.Decoder(event_type) for topic, event_type in TYPES.items()}
_encode: Final = msgspec.json.Encoder().encode


class EventMapper(Mapper[str]):
    """Maps events to stored events and back, through the library's compressor and cipher if they are set."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """Return the event in its stored form, with version 0: the recorder that appends it assigns the version."""
        return StoredEvent(domain_event.group_id, 0, domain_event.TOPIC, self.seal(_encode(domain_event)))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        return self.decode(stored_event.topic, stored_event.state)

    def decode(self, topic: str, state: bytes) -> Event:
        """Return the event with this topic and state. Raises MapperDeserialisationError."""
        try:
            return _DECODERS[topic].decode(self.unseal(state))
        except Exception as error:
            reason = "this version does not know the event" if topic not in _DECODERS else str(error)
            raise MapperDeserialisationError(f"cannot decode {topic}: {reason}") from error

    def decode_stored(self, group_id: str, topic: str, state: bytes) -> Event:
        """Return the event of a group's stream; an UndecodableEvent if it cannot be decoded or is another group's."""
        try:
            event = self.decode(topic, state)
        except MapperDeserialisationError as error:
            reason = str(error)
        else:
            if event.group_id == group_id:
                return event
            reason = "it belongs to another group than its stream"
        return UndecodableEvent(group_id=group_id, occurred_at=0, recorded_at=0, stored_type=topic, reason=reason)

    @property
    def is_plain(self) -> bool:
        """Whether events are stored as JSON that everybody can read."""
        return not (self.compressor or self.cipher)

    def seal(self, data: bytes) -> bytes:
        """Compress and encrypt, if set."""
        if self.compressor:
            data = self.compressor.compress(data)
        return self.cipher.encrypt(data) if self.cipher else data

    def unseal(self, data: bytes) -> bytes:
        """Undo `seal`."""
        if self.cipher:
            data = self.cipher.decrypt(data)
        return self.compressor.decompress(data) if self.compressor else data


def mapper_of(factory: InfrastructureFactory[Any]) -> EventMapper:
    """Return a factory's mapper, with its compressor and cipher. Raises StoreUnavailable."""
    try:
        mapper: Any = factory.mapper()
    except Exception as error:
        raise StoreUnavailable(f"COMPRESSOR_TOPIC, CIPHER_TOPIC or CIPHER_KEY cannot be used: {error}") from error
    assert isinstance(mapper, EventMapper)
    return mapper
