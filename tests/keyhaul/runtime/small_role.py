"""A small role in a process of its own: `python small_role.py BEHAVIOUR CONFIG`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from keyhaul.config.services import OperationsSection, ServiceSection, StoreSection
from keyhaul.runtime.interface import Runtime, StartError
from keyhaul.runtime.process import serve


class SmallConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the small role needs."""

    service: ServiceSection
    operations: OperationsSection
    store: StoreSection | None = None


class SmallRole:
    """Does what its behaviour says."""

    name = "ckms"
    config = SmallConfig
    schema = None

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour

    async def run(self, config: Any, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
            if "key" in arguments:
                raise LookupError("no such key")
            if "number" in arguments:
                raise ValueError("number is not a number")
            if "bug" in arguments:
                raise AssertionError("secret detail")
            return {"echo": arguments}

        runtime.command("echo", echo)
        runtime.health(lambda: {"links": [{"link": "8-9", "state": "up"}]})
        if self._behaviour == "start-error":
            raise StartError("the certificate is missing: run keyhaul pki csr")
        if self._behaviour == "ends":
            return
        if self._behaviour == "failing-task":
            runtime.task(self._fail(), "failing")
        if self._behaviour == "store":
            await self._with_store(config, directory, runtime, stop)
            return
        runtime.alarm("test-alarm", link="8-9", event="taken name", pad=b"\x01" * 32)
        runtime.ready()
        await stop.wait()
        if self._behaviour == "slow-stop":
            await asyncio.sleep(60)
        if self._behaviour == "blocked":
            while True:
                time.sleep(1)  # noqa: ASYNC251 - that is the point

    async def _fail(self) -> None:
        await asyncio.sleep(0)
        raise ArithmeticError("something broke")

    async def _with_store(self, config: SmallConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        from sqlalchemy import Column, Integer, MetaData, Table

        from keyhaul.store.embedded import EmbeddedStore
        from keyhaul.store.interface import Schema

        metadata = MetaData()
        Table("keys", metadata, Column("number", Integer, primary_key=True))
        assert config.store is not None
        store = await EmbeddedStore.open(config.store, directory, Schema("ckms", 1, metadata))
        runtime.ready()
        await stop.wait()
        await store.close()


if __name__ == "__main__":
    sys.exit(serve(SmallRole(sys.argv[1]), Path(sys.argv[2])))
