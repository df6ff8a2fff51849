"""What the local socket answers, and what the UKMS does by itself."""

import asyncio
from typing import Any

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyRequest
from keyhaul.transport.messages.base import ErrorCode
from services.ukms import upkeep
from services.ukms.commands import Answers


async def test_buffers_show_their_levels(site: Any) -> None:
    answers = Answers(site.supply)
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(SaeId("a"), "b", KeyRequest(number=2)))
    request = await site.link.wait_for_request()
    (shown,) = (await answers.buffers({}))["buffers"]
    assert shown == {
        "master": "a",
        "slaves": ["b"],
        "size": 256,
        "class": "silver",
        "stored": 0,
        "set_aside": 0,
        "waiting": 1,
        "demanded": 2,
        "prefetched": 0,
    }
    await site.link.push(request)
    await waiting


async def test_after_each_session_a_report_goes_out_until_it_is_taken(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PERIOD", 0.01)
    running = asyncio.create_task(site.upkeep.run())
    site.link.away = ErrorCode.UNREACHABLE
    site.upkeep.new_session()
    await asyncio.sleep(0.02)
    assert site.link.reported == []
    site.link.away = None
    async with asyncio.timeout(5):
        while not site.link.reported:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [report.store for report in site.link.reported] == [site.store.store_id]
