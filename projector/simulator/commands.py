"""The commands of the callbacks that are sent."""

from typing import Final

CREATED: Final = "Group.CallbackAfterCreateGroup"
JOINED: Final = "Group.CallbackAfterNewMemberJoin"
LEFT: Final = "Group.CallbackAfterMemberExit"
FILLED: Final = "Group.CallbackAfterGroupFull"
DISMISSED: Final = "Group.CallbackAfterGroupDestroyed"
PROFILE_CHANGED: Final = "Group.CallbackAfterGroupInfoChanged"
MEMBER_CHANGED: Final = "Group.CallbackAfterMemberFieldChanged"
OWNER_CHANGED: Final = "Group.CallbackAfterChangeGroupOwner"
ATTRIBUTES_CHANGED: Final = "Group.CallbackAfterGroupAttrChanged"
TOPIC_CREATED: Final = "Group.CallbackAfterCreateTopic"
TOPIC_DISMISSED: Final = "Group.CallbackAfterTopicDestroyed"
TOPIC_CHANGED: Final = "Group.CallbackAfterTopicInfoChanged"

RECORDED: Final = (
    CREATED,
    JOINED,
    LEFT,
    FILLED,
    DISMISSED,
    PROFILE_CHANGED,
    MEMBER_CHANGED,
    OWNER_CHANGED,
    ATTRIBUTES_CHANGED,
    TOPIC_CREATED,
    TOPIC_DISMISSED,
    TOPIC_CHANGED,
)
"""Commands that a receiver records."""

GROUP_MESSAGE: Final = "Group.CallbackAfterSendMsg"
MESSAGE: Final = "C2C.CallbackAfterSendMsg"
STATE: Final = "State.StateChange"

IGNORED: Final = (GROUP_MESSAGE, MESSAGE, STATE)
"""Commands that arrive at the same address and carry no group state."""
