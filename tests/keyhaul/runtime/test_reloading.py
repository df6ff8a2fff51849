"""A changed configuration is taken whole or refused whole, and what needs a restart is named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig
from keyhaul.runtime.interface import NotTaken
from keyhaul.runtime.reloading import Reloading

CONFIG = """
[service]
domain = "test.example"
role = "ckms"
node = "8"
[identity]
certificate = "c"
key = "k"
trust = "t"
classic_certificate = "cc"
classic_key = "ck"
link_key = "l"
[listen]
address = "127.0.0.1:7443"
[operations]
metrics = "127.0.0.1:9443"
socket = "socket"
[store]
path = "store.db"
key_file = "store.key"
[[link]]
id = "8-9"
neighbour = "ckms-9"
address = "127.0.0.1:7444"
initiator = true
peer_link_key = "n"
suites = ["otp"]
floor = "otp"
[link.module]
url = "https://127.0.0.1:8014"
trust = "m"
kme = "k"
sae = "ckms-8"
peer_sae = "ckms-9"
"""


class Taken:
    """A role that takes links."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.toml"
        self.path.write_text(CONFIG)
        self.alarms: list[tuple[str, str]] = []
        self.configs: list[CkmsConfig] = []
        self.rest: list[str] = []
        self.refuses = ""
        self.reloading = Reloading(self.path, load(self.path, CkmsConfig), self._alarm)
        self.reloading.on_reload(["link"], self._take)

    async def _take(self, config: CkmsConfig) -> list[str]:
        if self.refuses:
            raise NotTaken(self.refuses)
        self.configs.append(config)
        return self.rest

    def _alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append((name, facts["why"]))


@pytest.fixture
def role(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


async def test_what_the_role_takes_is_given_to_it_and_the_rest_is_named(role: Taken) -> None:
    role.reloading.ready()
    assert await role.reloading.reload() == {"restart": [], "refused": ""}
    role.path.write_text(CONFIG.replace("otp", "aes-256-gcm").replace(":9443", ":9444").replace(":7443", ":7445"))
    role.rest = ["link 8-9: suites"]
    facts = await role.reloading.reload()
    assert facts == {"restart": ["listen", "operations", "link 8-9: suites"], "refused": ""}
    assert role.reloading.facts() == facts
    assert [config.link[0].floor for config in role.configs] == ["otp", "aes-256-gcm"]
    role.path.write_text(CONFIG)
    role.rest = []
    assert await role.reloading.reload() == {"restart": [], "refused": ""}
    assert role.alarms == []


async def test_a_file_with_errors_and_one_that_the_role_refuses_change_nothing(role: Taken) -> None:
    role.reloading.ready()
    role.path.write_text(CONFIG.replace("initiator = true\n", "").replace("8-9", "8/9"))
    with pytest.raises(NotTaken, match="initiator: missing"):
        await role.reloading.reload()
    assert role.configs == []
    assert "initiator" in role.reloading.facts()["refused"]
    role.path.write_text(CONFIG)
    role.refuses = "no such key"
    with pytest.raises(NotTaken, match="no such key"):
        await role.reloading.reload()
    assert [name for name, _ in role.alarms] == ["configuration-refused"] * 2
    assert role.reloading.facts()["refused"] == "no such key"
    role.refuses = ""
    assert (await role.reloading.reload())["refused"] == ""


async def test_what_is_asked_before_it_serves_is_done_then_and_one_after_the_other(role: Taken) -> None:
    asked = [asyncio.create_task(role.reloading.reload()) for _ in range(3)]
    await asyncio.sleep(0)
    role.path.write_text(CONFIG.replace("8-9", "8-10"))
    assert role.configs == []
    role.reloading.ready()
    await asyncio.gather(*asked)
    assert [config.link[0].id for config in role.configs] == ["8-10"] * 3


async def test_who_goes_away_while_it_is_taken_leaves_nothing_half_done(role: Taken) -> None:
    role.reloading.ready()
    entered, go = asyncio.Event(), asyncio.Event()

    async def slowly(config: CkmsConfig) -> list[str]:
        entered.set()
        await go.wait()
        return await role._take(config)

    role.reloading.on_reload(["link"], slowly)
    asking = asyncio.create_task(role.reloading.reload())
    await entered.wait()
    asking.cancel()
    go.set()
    async with asyncio.timeout(5):
        while not role.configs:
            await asyncio.sleep(0)
