"""Evidence as it is stored: JSON text."""

from typing import Final

import msgspec

from projector.domain.membership import Member
from projector.domain.profile import Profile
from projector.read_model.rows import GroupEvidence, GroupSnapshot

_encoder: Final = msgspec.json.Encoder(order="deterministic")
decode_member: Final = msgspec.json.Decoder(Member).decode
decode_group: Final = msgspec.json.Decoder(GroupEvidence).decode
decode_texts: Final = msgspec.json.Decoder(Profile).decode
decode_snapshot: Final = msgspec.json.Decoder(GroupSnapshot).decode
decode_users: Final = msgspec.json.Decoder(list[str]).decode


def encode(evidence: object) -> str:
    return _encoder.encode(evidence).decode()
