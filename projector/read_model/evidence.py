"""Evidence as it is stored: JSON text."""

from typing import Final

import msgspec

from projector.domain.fullness import Fullness
from projector.domain.lives import Lives
from projector.domain.membership import Member
from projector.domain.profile import Profile

_encoder: Final = msgspec.json.Encoder(order="sorted")
decode_member: Final = msgspec.json.Decoder(Member).decode
decode_lives: Final = msgspec.json.Decoder(Lives).decode
decode_profile: Final = msgspec.json.Decoder(Profile).decode
decode_fullness: Final = msgspec.json.Decoder(Fullness).decode
decode_users: Final = msgspec.json.Decoder(list[str]).decode


def encode(evidence: object) -> str:
    return _encoder.encode(evidence).decode()
