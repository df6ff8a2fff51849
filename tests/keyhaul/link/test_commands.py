"""What an operator asks of links on the local socket."""

from __future__ import annotations

from typing import Any

import pytest

from keyhaul.link.commands import LinkCommands
from keyhaul.link.interface import LinkCalls
from keyhaul.runtime.interface import LocalCommand


class Named:
    """A link of which only the name matters."""

    id = "8-9"


class OneLink:
    """Links of which there is one, `8-9`."""

    def __init__(self) -> None:
        self.suites: list[str] = []
        self.enabled = True
        self.severed = False

    def all(self) -> list[LinkCalls]:
        link: Any = Named()
        return [link]

    async def protect(self, link_id: str, suites: list[str]) -> None:
        self._known(link_id)
        if "rot13" in suites:
            raise ValueError("rot13 is unknown")
        self.suites = suites

    async def enable(self, link_id: str, enabled: bool) -> None:
        self._known(link_id)
        self.enabled = enabled

    def cut(self, link_id: str, cut: bool) -> None:
        self._known(link_id)
        self.severed = cut

    @staticmethod
    def _known(link_id: str) -> None:
        if link_id != "8-9":
            raise KeyError(link_id)


class Socket:
    """Keeps what is registered."""

    def __init__(self) -> None:
        self.commands: dict[str, LocalCommand] = {}

    def command(self, name: str, answer: LocalCommand) -> None:
        self.commands[name] = answer


@pytest.fixture
def links() -> OneLink:
    return OneLink()


@pytest.fixture
def socket(links: OneLink) -> Socket:
    found = Socket()
    runtime: Any = found
    LinkCommands(links).register(runtime)
    return found


async def test_protect_changes_the_suites(links: OneLink, socket: Socket) -> None:
    wanted = {"link": "8-9", "suites": ["otp", "aes-256-gcm"]}
    assert await socket.commands["protect"](wanted) == wanted
    assert links.suites == wanted["suites"]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"link": "8-9", "suites": "otp"}, {"link": "8-9", "suites": ["rot13"]}, {"link": "8-9", "suites": [1]}],
)
async def test_protect_refuses_what_is_no_list_of_known_suites(socket: Socket, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        await socket.commands["protect"](wrong)


async def test_enable_switches_a_link_off_and_on(links: OneLink, socket: Socket) -> None:
    await socket.commands["enable"]({"link": "8-9", "enabled": False})
    assert not links.enabled
    await socket.commands["enable"]({"link": "8-9", "enabled": True})
    assert links.enabled


async def test_cut_lets_nothing_cross_a_link_until_it_is_mended(links: OneLink, socket: Socket) -> None:
    for cut in (True, False):
        assert await socket.commands["cut"]({"link": "8-9", "cut": cut}) == {"link": "8-9", "cut": cut}
        assert links.severed is cut
    with pytest.raises(ValueError, match="cut takes"):
        await socket.commands["cut"]({"link": "8-9"})


@pytest.mark.parametrize("wrong", [{}, {"link": "8-9"}, {"link": 8, "enabled": True}, {"link": "8-9", "enabled": "no"}])
async def test_enable_refuses_what_is_neither_true_nor_false(socket: Socket, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        await socket.commands["enable"](wrong)


async def test_an_unknown_link_is_told_with_those_there_are(socket: Socket) -> None:
    for command, others in (("protect", {"suites": ["otp"]}), ("enable", {"enabled": True}), ("cut", {"cut": True})):
        with pytest.raises(LookupError, match="8-9"):
            await socket.commands[command]({"link": "7-8", **others})
