"""How a call to a target can fail, as its client sees it."""

from __future__ import annotations

from keyhaul.agents.gnmi.errors import Code


class TargetError(Exception):
    """A call to a target came to nothing; the message begins with the target's service id."""


class Unreachable(TargetError):
    """There is no connection: nothing listens, the certificates do not fit, or it broke off."""


class Late(TargetError):
    """No answer within the deadline. What a Set came to is not known."""


class Broken(TargetError):
    """Something failed in the target or in gRPC. What a Set came to is not known."""


class Silent(TargetError):
    """A subscription brought nothing for too long; the connection is given up."""


class Ended(TargetError):
    """The target ended a subscription that should go on."""


class Unprotected(TargetError):
    """The connection's key agreement would not withstand a quantum computer."""


class RefusedByTarget(TargetError):
    """The target answered with an error; nothing has changed."""

    def __init__(self, message: str, code: Code | None) -> None:
        """Keep the code, None for one that no target of ours sends."""
        super().__init__(message)
        self.code = code
