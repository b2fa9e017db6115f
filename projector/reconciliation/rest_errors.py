"""The error codes of the vendor's REST API, and what to do about each.

From the REST overview (269/1519), the error codes (679/131708, 1047/34348) and the pages of the commands.
"""

from enum import Enum, auto
from typing import Final


class RestError(Exception):
    """A request failed. The text says how, and what to do."""


class Refused(RestError):
    """Asking again is of no use: the settings, the key or the console's configuration are wrong."""


class Unavailable(RestError):
    """The vendor did not answer, or only to go slower, although it was asked several times."""


class Gone(RestError):
    """The group does not exist, by the vendor's answer, whose `tau` is as in Answer."""

    def __init__(self, text: str, tau: int) -> None:
        super().__init__(text)
        self.tau = tau


class TooLarge(RestError):
    """The answer would be too large; less must be asked for at a time."""


class NotForType(RestError):
    """The command does not exist for groups of this type, or not in the app's edition."""


class Action(Enum):
    """What a client does about an error code."""

    RETRY = auto()
    SLOW_DOWN = auto()
    SIGN_AGAIN = auto()
    STOP = auto()


_RETRIED: Final = (10002, 60008, 60013, 60014, 70169, 70500)
_THROTTLED: Final = (10006, 60007, 60011, 60018, 60019)
_AUTHENTICATION: Final = (10001, 60004, 60005, 70001, 70002, 70003, 70005, 70009, 70032, 70052)
ACTIONS: Final = (
    dict.fromkeys(_RETRIED, Action.RETRY)
    | dict.fromkeys(_THROTTLED, Action.SLOW_DOWN)
    | dict.fromkeys(_AUTHENTICATION, Action.SIGN_AGAIN)
)
"""What to do about a code; all others stop."""

GONE_CODES: Final = (10010, 10015)
TOO_LARGE_CODE: Final = 10018
NOT_FOR_TYPE_CODES: Final = (10007, 10059, 11000, 60017, 10026)

_KEY: Final = "check PROJECTOR_REST_KEY and PROJECTOR_SDK_APP_ID, and that PROJECTOR_REST_URL is the app's region"
_NOT_ADMINISTRATOR: Final = "PROJECTOR_REST_ADMIN is not an administrator of the app; add the account in the console"
REMEDIES: Final = {
    **dict.fromkeys(_AUTHENTICATION, _KEY),
    70001: "the signature has expired; check this machine's clock",
    70013: "the signature is for another account; check PROJECTOR_REST_ADMIN",
    70014: "the signature is for another app; check PROJECTOR_SDK_APP_ID",
    70016: f"the app has no such key; {_KEY}",
    70020: f"the app is not known there; {_KEY}",
    70050: f"too many failed signatures; wait a minute, and {_KEY}",
    70051: "the administrator's account is blocked",
    70107: "PROJECTOR_REST_ADMIN is not an account of the app; import it",
    60006: _KEY,
    60012: _KEY,
    60010: _NOT_ADMINISTRATOR,
    10007: _NOT_ADMINISTRATOR,
    60016: "the app is disabled; see the console",
    60020: "the app's plan has expired; see the console",
    60021: "this machine's address is not allowed; add it in the console",
}


def remedy(code: int) -> str:
    """Return what to do about a code that stops a run."""
    return REMEDIES.get(code, "see the vendor's table of error codes")
