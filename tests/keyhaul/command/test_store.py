"""`keyhaul store` on the store of a stopped service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Column, Integer, MetaData, Table

from keyhaul.command.store import store
from keyhaul.config.services import StoreSection
from keyhaul.runtime.roles import load_role
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema, Upgrade

METADATA = MetaData()
Table("keys", METADATA, Column("number", Integer, primary_key=True))


@pytest.fixture
def config(laid_out: Path, tmp_path: Path) -> Path:
    shutil.copytree(laid_out / "nodes/m/ckms", tmp_path / "ckms", ignore=shutil.ignore_patterns("store.*", "socket"))
    return tmp_path / "ckms/config.toml"


def known(role: str = "ckms") -> int:
    """The version of a role's schema that this release knows."""
    schema = load_role(role).schema
    assert schema is not None
    return schema.version


async def make(
    config: Path, section: StoreSection | None = None, name: str = "ckms", version: int = 0
) -> EmbeddedStore:
    section = section or StoreSection(path="store.db", key_file="store.key")
    return await EmbeddedStore.open(section, config.parent, Schema(name, version or known(), METADATA))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(store, [str(argument) for argument in arguments])


def findings(config: Path) -> tuple[int, list[dict[str, Any]]]:
    result = invoke("verify", "--config", config, "--json")
    return result.exit_code, json.loads(result.stdout)["findings"]


async def test_a_sound_store_passes(config: Path) -> None:
    await (await make(config)).close()
    code, found = findings(config)
    assert code == 0
    assert {finding["check"] for finding in found} == {
        "permissions",
        "authenticity of pages",
        "structure",
        "references",
        "schema",
    }
    assert all(finding["passed"] for finding in found)
    assert invoke("verify", "--config", config).exit_code == 0


async def test_damage_open_permissions_and_a_strange_schema_are_found(config: Path) -> None:
    await (await make(config, name="akms")).close()
    path = config.parent / "store.db"
    path.chmod(0o644)
    code, found = findings(config)
    assert code == 1
    assert [finding["check"] for finding in found if not finding["passed"]] == ["permissions", "schema"]
    content = bytearray(path.read_bytes())
    content[3 * 4096 + 100] ^= 1
    path.write_bytes(content)
    code, found = findings(config)
    assert code == 1
    assert "authenticity of pages" in [finding["check"] for finding in found if not finding["passed"]]


async def test_a_store_of_a_newer_release_does_not_pass_and_it_is_said_what_to_do(config: Path) -> None:
    await (await make(config, version=known() + 1)).close()
    code, found = findings(config)
    [schema] = [finding for finding in found if not finding["passed"]]
    assert (code, schema["check"]) == (1, "schema")
    assert f"version {known() + 1} and this release knows up to {known()}" in schema["detail"]
    assert "install the release that wrote it" in schema["detail"]
    assert "FAILED" in invoke("verify", "--config", config).stdout


async def test_an_older_store_passes_if_there_is_a_way_to_this_release(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await make(config, version=1)).close()
    role = type(load_role("ckms"))
    steps = (Upgrade(2, lambda _: None),)
    for upgrades, passed in (((), False), (steps, True)):
        monkeypatch.setattr(role, "schema", Schema("ckms", 2, METADATA, upgrades))
        code, found = findings(config)
        [schema] = [finding for finding in found if finding["check"] == "schema"]
        assert (code == 0, schema["passed"]) == (passed, passed)
    assert "the service takes it to version 2 when it starts" in schema["detail"]


async def test_an_open_store_is_not_touched(config: Path) -> None:
    opened = await make(config)
    result = invoke("verify", "--config", config)
    await opened.close()
    assert result.exit_code == 1
    assert "open in another process" in result.stderr


def test_a_missing_store_is_not_made(config: Path) -> None:
    result = invoke("verify", "--config", config)
    assert (result.exit_code, "there is no store" in result.stderr) == (1, True)
    assert not (config.parent / "store.db").exists()
    shown = json.loads(invoke("status", "--config", config, "--json").stdout)
    assert (shown["running"], shown["stores"][0]["exists"]) == (False, False)


@pytest.mark.parametrize("content", [None, "x", "[service]\nrole = 1", "[service]\nrole='ckms'\nnode='1'"])
def test_a_useless_configuration_has_its_own_exit_code(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_text(content)
    assert invoke("status", "--config", path).exit_code == 78
    assert invoke("verify", "--config", path).exit_code == 78


def test_a_role_without_a_store_is_told_so(laid_out: Path) -> None:
    for command in ("verify", "status"):
        result = invoke(command, "--config", laid_out / "nodes/m/qkdm/config.toml")
        assert (result.exit_code, "has no key store" in result.stderr) == (1, True)


async def test_the_passphrase_is_changed(config: Path) -> None:
    for name, text in (("old", "the old passphrase"), ("new", "the new passphrase")):
        (config.parent / name).write_text(text)
        (config.parent / name).chmod(0o600)
    text = config.read_text()
    config.write_text(
        text.replace('key_file = "store.key"', 'sealer = "passphrase"\npassphrase_file = "old"').replace(
            'sealer = "key-file"\n', ""
        )
    )
    old = StoreSection(path="store.db", sealer="passphrase", passphrase_file="old")
    await (await make(config, old)).close()
    result = invoke("passphrase", "--config", config, "--new-file", config.parent / "new")
    assert result.exit_code == 0, result.output
    assert "old" in result.output
    result = invoke("verify", "--config", config)
    assert (result.exit_code, "passphrase is wrong" in result.stderr) == (1, True)
    await (await make(config, StoreSection(path="store.db", sealer="passphrase", passphrase_file="new"))).close()


def test_a_key_file_has_no_passphrase(config: Path) -> None:
    result = invoke("passphrase", "--config", config)
    assert (result.exit_code, "has no passphrase" in result.stderr) == (1, True)
