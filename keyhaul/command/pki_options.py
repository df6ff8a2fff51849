"""What the commands of `keyhaul pki` share: options, subjects, passphrases, and how outcomes are told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhaul.config.addresses import MalformedAddress, parse_address
from keyhaul.identity import secretfile
from keyhaul.identity.authority import Classic
from keyhaul.identity.custody import Custody
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.names import MalformedName, Role, ServiceName, node_id, sae_id
from keyhaul.identity.requests import Subject

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ROLES = click.Choice([role.value for role in Role if role is not Role.QKDM])


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def authorities_options(command: Command) -> Command:
    """Add the options that lead to authorities."""
    command = click.option(
        "--passphrase-file", type=FILE, help="File (mode 0600) with the passphrase of the authorities' keys."
    )(command)
    return click.option("--authorities", required=True, type=PATH, help="Directory of the authorities.")(command)


def subject_options(command: Command) -> Command:
    """Add the options that say whom a certificate is for."""
    for option in reversed(
        (
            click.option("--domain", help="The operator's domain (with --role and --node)."),
            click.option("--role", type=ROLES, help="The service's role, or an operator's."),
            click.option("--node", help="The service's node, or the person's name for operators' roles."),
            click.option("--sae", help="Instead of role and node: an SAE's ID."),
            click.option("--module", help="Instead: a QKD module's KME ID."),
            click.option("--site", help="Instead: the KME ID by which a UKMS meets SAEs."),
            click.option("--host", multiple=True, help="Host name or IP address of a module or site (repeatable)."),
        )
    ):
        command = option(command)
    return command


@contextmanager
def failures() -> Iterator[None]:
    """Tell what went wrong as click does: exit code 2 for usage, 1 for failure, no traceback."""
    try:
        yield
    except IdentityError as error:
        raise click.ClickException(str(error)) from None
    except MalformedName as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{place}{error.strerror or error}") from None


def tell(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the outcome for people, or as JSON."""
    click.echo(json.dumps(facts) if as_json else text)


def now() -> datetime:
    """The present time, as certificates have it."""
    return datetime.now(UTC)


def check_domain(domain: str) -> None:
    """Raise MalformedName where this is no domain."""
    ServiceName.parse(f"spiffe://{domain}/{Role.CKMS}/1")


def check_writable(file: Path) -> None:
    """Raise IdentityError where a file could not be written, before anything is done whose outcome it would hold."""
    if file.is_dir():
        raise IdentityError(f"{file} is a directory: name a file")
    if not file.parent.is_dir():
        raise IdentityError(f"{file.parent} is no directory: make it first")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise IdentityError(f"{file.parent} cannot be written to")


def subject_from(options: dict[str, Any]) -> Subject:
    """Return whom the options name; UsageError where they do not fit one another."""
    kinds = [name for name in ("role", "sae", "module", "site") if options[name]]
    if len(kinds) != 1:
        raise click.UsageError("say for whom: --role with --node, or one of --sae, --module, --site")
    (kind,) = kinds
    hosts = tuple(options["host"])
    if kind in ("role", "sae") and hosts:
        raise click.UsageError("--host goes with --module or --site")
    if kind == "role":
        if not options["node"] or not options["domain"]:
            raise click.UsageError("--role needs --node and --domain")
        check_domain(options["domain"])
        return Subject.of(ServiceName(options["domain"], Role(options["role"]), node_id(options["node"])))
    if options["node"]:
        raise click.UsageError("--node goes with --role")
    purpose = {"sae": Classic.SAES, "module": Classic.MODULES, "site": Classic.SITES}[kind]
    if kind != "sae" and not hosts:
        raise click.UsageError(f"--{kind} needs --host: the addresses by which it is reached")
    for host in hosts:
        try:
            parse_address(f"[{host}]:0" if ":" in host else f"{host}:0")
        except MalformedAddress:
            raise click.UsageError(f"--host {host!r} is neither a host name nor an IP address") from None
    return Subject(sae_id(options[kind]), None, purpose, hosts)


def as_options(options: dict[str, Any], out: str) -> str:
    """Return the options by which `sign` names the same subject, and writes to `out`."""
    given = [f"--{name} {options[name]}" for name in ("role", "node", "sae", "module", "site") if options[name]]
    return " ".join([*given, *(f"--host {host}" for host in options["host"]), f"--out {out}"])


def new_passphrase(file: Path | None) -> bytes:
    """Return the passphrase for keys that are to be made."""
    if file is not None:
        return _passphrase_of(file)
    _needs_terminal()
    text: str = click.prompt(
        "Passphrase for the authorities' keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return text.encode()


def unlocked(authorities: Path, name: str, file: Path | None) -> Custody:
    """Open a directory of authorities with what the key of one of them needs."""
    key = authorities / name / "key.pem"
    if not key.exists() or b"ENCRYPTED" not in secretfile.read(key):
        return Custody(authorities)
    if file is not None:
        return Custody(authorities, _passphrase_of(file))
    _needs_terminal()
    text: str = click.prompt(f"Passphrase of authority {name}", hide_input=True, err=True)
    return Custody(authorities, text.encode())


def _needs_terminal() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the passphrase: give --passphrase-file")


def _passphrase_of(file: Path) -> bytes:
    passphrase = secretfile.read(file).rstrip(b"\r\n")
    if not passphrase:
        raise IdentityError(f"{file} is empty: it must hold the passphrase")
    return passphrase
