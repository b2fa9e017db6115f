"""The fake satisfies a client that others have written from the vendor's documentation."""

from __future__ import annotations

import pytest
from tencentcloud_im.tcim_client import TCIMClient

from projector.simulator.vendor.groups import VendorGroups
from tests.running import SDK_APP_ID
from tests.vendor import ADMINISTRATOR, KEY, imported, vendor


def test_an_independent_client_reads_the_fake() -> None:
    groups = VendorGroups()
    groups.add("@TGS#1", imported("ann", "bob", limit=200, attributes={"a": "1"}))
    groups.add("@TGS#_c", imported(*(f"user{number:03}" for number in range(250)), kind="Community"))
    with vendor(groups) as fake:
        client = TCIMClient(SDK_APP_ID, KEY, ADMINISTRATOR, f"{fake.url}/v4")
        listed = client.get_group().json()
        assert (listed["ErrorCode"], listed["TotalCount"], listed["Next"]) == (0, 2, 0)
        assert {item["GroupId"] for item in listed["GroupIdList"]} == {"@TGS#1", "@TGS#_c"}
        (group,) = client.get_group_detail(["@TGS#1"]).json()["GroupInfo"]
        assert (group["Type"], group["Owner_Account"], group["MaxMemberNum"]) == ("Public", "ann", 200)
        roles = client.get_mem_role_in_group("@TGS#1", ["ann", "cyd"]).json()["UserIdList"]
        assert [item["Role"] for item in roles] == ["Owner", "NotMember"]
        assert client.get_group_attr("@TGS#1").json()["GroupAttrAry"] == [{"key": "a", "value": "1"}]
        roster = client.get_group_mem_info_detail("@TGS#1").json()
        assert [item["Member_Account"] for item in roster["MemberList"]] == ["ann", "bob"]


def test_an_independent_client_with_a_wrong_key_is_refused() -> None:
    with vendor() as fake:
        client = TCIMClient(SDK_APP_ID, "wrong", ADMINISTRATOR, f"{fake.url}/v4")
        assert client.get_group().json()["ErrorCode"] == 70009


@pytest.mark.parametrize("account", ["administrator"])
def test_an_independent_signer_is_accepted(account: str) -> None:
    from TLSSigAPIv2 import TLSSigAPIv2

    from projector.clock import now_ms
    from projector.simulator.vendor.user_sig import check_user_sig

    ticket = TLSSigAPIv2(SDK_APP_ID, KEY).gen_sig(account, 3600)
    now_s = now_ms() // 1_000
    assert check_user_sig(ticket, identifier=account, sdk_app_id=SDK_APP_ID, key=KEY, now_s=now_s) == 0
