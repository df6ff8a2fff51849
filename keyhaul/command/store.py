"""`keyhaul store`: look at a service's key store, check it, change its passphrase."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyhaul.command.output import (
    ConfigurationRefused,
    json_option,
    operations_of,
    print_json,
    print_table,
    size,
    wait_for,
)

if TYPE_CHECKING:
    from keyhaul.config.services import StoreSection

config_option = click.option(
    "--config", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The service's TOML file."
)


@click.group()
def store() -> None:
    """Look at and check a service's key store."""


@store.command()
@config_option
@json_option
def status(config: Path, as_json: bool) -> None:
    """Show the store: of the running service, or of a stopped one what its file tells."""
    from keyhaul.runtime.local import LocalRefusal, LocalUnreachable, ask

    _, service, socket = operations_of(config)
    try:
        facts: dict[str, Any] = {"service": service, "running": True} | wait_for(ask(socket, "store"))
    except LocalRefusal as error:
        raise click.ClickException(f"{service}: {error}") from error
    except LocalUnreachable:
        facts = {"service": service, "running": False, "stores": [_closed(config)]}
    if not facts["stores"]:
        raise click.ClickException(_without_store(service))
    if as_json:
        print_json(facts)
        return
    click.echo(f"{service} {'runs' if facts['running'] else 'does not run'}")
    for one in facts["stores"]:
        if one.get("exists") is False:
            click.echo(f"  there is no store yet at {one['path']}; the service makes it at its first start")
            continue
        for name, value in one.items():
            if name not in ("rows", "exists"):
                click.echo(f"  {name.replace('_', ' ')}: {size(value) if name == 'bytes' else value}")
        if rows := one.get("rows"):
            print_table(("table", "rows"), [(table, str(count)) for table, count in rows.items()])


@store.command()
@config_option
@json_option
def verify(config: Path, as_json: bool) -> None:
    """Check the store of a stopped service: key, pages, structure, schema, permissions. Changes nothing.

    Exit code 1: a check failed, or the store cannot be opened.
    """
    from keyhaul.runtime.roles import UnknownRole, load_role
    from keyhaul.store.interface import StoreError
    from keyhaul.store.verify import verify as verify_store

    role, service, _ = operations_of(config)
    section = _section(config)
    try:
        schema = load_role(role).schema
    except UnknownRole as error:
        raise click.ClickException(str(error)) from error
    if schema is None:
        raise click.ClickException(_without_store(service))
    try:
        findings = verify_store(section, config.absolute().parent, schema)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        print_table(
            ("check", "result", "detail"),
            [(finding.check, "passed" if finding.passed else "FAILED", finding.detail) for finding in findings],
        )
    if not all(finding.passed for finding in findings):
        sys.exit(1)


@store.command()
@config_option
@click.option(
    "--new-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File (mode 0600) with the new passphrase; without it the terminal asks.",
)
@json_option
def passphrase(config: Path, new_file: Path | None, as_json: bool) -> None:
    """Change the store's passphrase. The store itself stays as it is; the service may run."""
    from keyhaul.store.interface import StoreError
    from keyhaul.store.passphrase import passphrase_source
    from keyhaul.store.sealer import passphrase_sealer

    section, directory = _section(config), config.absolute().parent
    if section.sealer != "passphrase":
        raise click.ClickException(f"the store of {config} is sealed by {section.sealer}: it has no passphrase")
    if new_file is None and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the new passphrase: give --new-file")
    kind = "prompt" if new_file is None else "file"
    try:
        new = passphrase_source(kind, file=new_file, credential="", what=str(directory / section.path))
        passphrase_sealer(section, directory).change(new)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"config": str(config), "changed": True, "source": section.passphrase_source})
    else:
        click.echo(f"The passphrase is changed: put the new one where the service finds it ({_source(section)}).")


def _without_store(service: str) -> str:
    return f"{service} has no key store (akms, ckms and ukms have one)"


def _source(section: StoreSection) -> str:
    """Where a service with this [store] finds its passphrase."""
    match section.passphrase_source:
        case "file":
            return str(section.passphrase_file)
        case "credential":
            return f"systemd credential {section.passphrase_credential}"
        case _:
            return "it asks at its start"


def _closed(config: Path) -> dict[str, Any]:
    section = _section(config)
    path = config.absolute().parent / section.path
    try:
        length: int | None = path.stat().st_size
    except FileNotFoundError:
        length = None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    return {"path": str(path), "exists": length is not None, "bytes": length, "sealer": section.sealer}


def _section(config: Path) -> StoreSection:
    """The checked [store] table of a role's configuration."""
    from keyhaul.config.loader import load
    from keyhaul.config.problems import ConfigurationError
    from keyhaul.config.services import AkmsConfig, CkmsConfig, UkmsConfig

    role, service, _ = operations_of(config)
    types: dict[str, type[AkmsConfig | CkmsConfig | UkmsConfig]] = {
        "akms": AkmsConfig,
        "ckms": CkmsConfig,
        "ukms": UkmsConfig,
    }
    if role not in types:
        raise click.ClickException(_without_store(service))
    try:
        return load(config, types[role]).store
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
