"""Callbacks are accepted for this app only and, if a token is set, only if they are signed with it."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.callbacks import Forbidden, authenticate, parameters, sign

APP = 1400000001
TOKEN = "xxxxyyyy"
REQUEST_TIME = 1669872112
SIGNATURE = "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"
"""The vendor's own example, from the Webhook Overview."""


def passes(
    query: dict[str, str], *, token: str | None = TOKEN, more: tuple[str, ...] = (), now_ms: int = REQUEST_TIME * 1000
) -> bool:
    try:
        authenticate(query, sdk_app_id=APP, tokens=((token,) if token else ()) + more, now_ms=now_ms)
    except Forbidden:
        return False
    return True


def signed(request_time: str = str(REQUEST_TIME), signature: str = SIGNATURE) -> dict[str, str]:
    return {"sdkappid": str(APP), "sign": signature, "requesttime": request_time}


def test_the_vendors_own_example_verifies() -> None:
    assert sign(TOKEN, REQUEST_TIME) == SIGNATURE
    assert passes(signed())


def test_a_signature_in_capitals_is_the_same_number() -> None:
    assert passes(signed(signature=SIGNATURE.upper()))


def test_while_a_token_is_replaced_both_are_accepted_and_no_third() -> None:
    for tokens in ((TOKEN, "new"), ("new", TOKEN)):
        assert passes(signed(), token=tokens[0], more=tokens[1:])
        assert passes(signed(signature=sign("new", REQUEST_TIME)), token=tokens[0], more=tokens[1:])
        assert not passes(signed(signature=sign("other", REQUEST_TIME)), token=tokens[0], more=tokens[1:])


def test_without_a_token_only_the_app_counts() -> None:
    assert passes({"sdkappid": str(APP)}, token=None)
    assert passes(signed(signature="nonsense"), token=None)


@pytest.mark.parametrize(
    "app", [None, "", "1400000002", "01400000001", " 1400000001", "1400000001.0", "+1400000001", "\uff11400000001"]
)
def test_another_app_or_none_is_refused_with_and_without_a_token(app: str | None) -> None:
    query = {key: value for key, value in (signed() | {"sdkappid": app}).items() if value is not None}
    assert not passes(query)
    assert not passes(query, token=None)


@pytest.mark.parametrize(
    "changed",
    [
        {"sign": ""},
        {"sign": SIGNATURE[:-1]},
        {"sign": SIGNATURE + "0"},
        {"sign": SIGNATURE.replace("1", "2", 1)},
        {"sign": "é" * 64},
        {"sign": sha256(b"xxxyyy1669872112").hexdigest()},
        {"requesttime": ""},
        {"requesttime": "1669872113"},
        {"requesttime": "1669872112.0"},
        {"requesttime": "-1669872112"},
        {"requesttime": " 1669872112"},
        {"requesttime": "1_669_872_112"},
        {"requesttime": "١٦٦٩٨٧٢١١٢"},
        {"requesttime": "9" * 5000},
    ],
)
def test_a_wrong_or_malformed_signature_or_time_is_refused(changed: dict[str, str]) -> None:
    assert not passes(signed() | changed)


@pytest.mark.parametrize("missing", ["sign", "requesttime"])
def test_a_missing_signature_or_time_is_refused(missing: str) -> None:
    assert not passes({name: value for name, value in signed().items() if name != missing})


@pytest.mark.parametrize("request_time", ["٣", "²", "1e9", "0x10", "1669872112\n"])
def test_a_time_that_is_no_decimal_is_refused_even_where_it_is_signed(request_time: str) -> None:
    assert not passes(signed(request_time, sha256((TOKEN + request_time).encode()).hexdigest()))


@pytest.mark.parametrize(
    ("away_ms", "fresh"),
    [
        (-60_001, False),
        (-60_000, True),
        (0, True),
        (60_000, True),
        (60_001, False),
        (3_600_000, False),
    ],
)
def test_a_signature_is_good_for_a_minute_each_way(away_ms: int, fresh: bool) -> None:
    assert passes(signed(), now_ms=REQUEST_TIME * 1000 + away_ms) is fresh


def test_the_refusal_of_a_signature_does_not_tell_the_token_nor_the_right_signature() -> None:
    with pytest.raises(Forbidden) as refusal:
        authenticate(signed(signature="0" * 64), sdk_app_id=APP, tokens=[TOKEN], now_ms=REQUEST_TIME * 1000)
    assert TOKEN not in str(refusal.value)
    assert SIGNATURE not in str(refusal.value)


def test_a_token_may_hold_any_character() -> None:
    token = "tökén 密钥"
    assert passes(signed(signature=sign(token, REQUEST_TIME)), token=token)


@pytest.mark.parametrize(
    "query_string",
    [
        b"SdkAppid=1400000001&CallbackCommand=a.B&OptPlatform=iOS",
        b"sdkappid=1400000001&callbackcommand=a.B&optplatform=iOS",
        b"SDKAPPID=1400000001&CALLBACKCOMMAND=a.B&OPTPLATFORM=iOS",
        b"SdkAppId=1400000001&CallbackCommand=a%2EB&OptPlatform=iOS&empty=&&novalue",
    ],
)
def test_parameter_names_are_read_in_any_case(query_string: bytes) -> None:
    read = parameters(query_string)
    assert (read["sdkappid"], read["callbackcommand"], read["optplatform"]) == ("1400000001", "a.B", "iOS")


@given(
    st.lists(st.sampled_from([b"a", b"B", b"=", b"&", b"+", b"%", b"%2", b"6", b"%C3", b"%A9", b"\xff", b";", b"\x00"]))
)
def test_query_strings_are_read_as_the_standard_library_reads_them(parts: list[bytes]) -> None:
    text = b"".join(parts)
    expected = {name.lower(): value for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True)}
    assert parameters(text) == expected


@pytest.mark.parametrize("query_string", [b"", b"&&&", b"%", b"%zz=%u1234", b"\xff\xfe=\x00", b"a=%FF%FE", b"=" * 5000])
def test_no_query_string_is_too_odd_to_be_read(query_string: bytes) -> None:
    assert isinstance(parameters(query_string), dict)
    assert not passes(parameters(query_string))
