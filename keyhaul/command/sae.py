"""`keyhaul sae`: ask a KME for keys as an SAE does, over ETSI GS QKD 014; for people and scripts.

Exit codes: 0 done, 1 the KME refused, 2 wrong usage, 69 the KME cannot be reached, 75 it has no keys at present.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

import click

from keyhaul.command.output import UNREACHABLE, Failed, Number

if TYPE_CHECKING:
    from keyhaul.keys.etsi014 import Key, KeyContainer
    from keyhaul.transport.etsi014 import Client014, Etsi014Error

REFUSED = 1
EXHAUSTED = 75

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the KME is and with which files to call it."""

    url: str
    certificate: Path
    key: Path
    trust: Path
    kme: str | None
    deadline: float


@click.group()
def sae() -> None:
    """Get keys from a KME (ETSI GS QKD 014)."""


def _named(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """An empty SAE ID would be another URL."""
    if not value:
        raise click.BadParameter("an SAE ID is not empty")
    return value


def _accessing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which KME to ask, and as whom; the command gets an `Access` first."""

    @wraps(command)
    def called(
        network: Path | None,
        sae_id: str | None,
        url: str | None,
        cert: Path | None,
        key: Path | None,
        ca: Path | None,
        kme: str | None,
        deadline: float,
        **others: Any,
    ) -> None:
        if network is not None and not any((url, cert, key, ca)):
            if sae_id is None:
                raise click.UsageError(f"--as is missing: one of {', '.join(_entries(network))}")
            access = _from_network(network, sae_id, kme, deadline)
        elif network is None and sae_id is None and url and cert and key and ca:
            access = Access(url, cert, key, ca, kme, deadline)
        else:
            raise click.UsageError("give either --network and --as, or --url, --cert, --key and --ca")
        command(access, **others)

    file = click.Path(path_type=Path)
    for option in (
        click.option("--deadline", type=Number(0.001, 3600), default=15.0, show_default=True, help="Seconds."),
        click.option("--kme", metavar="KME_ID", help="Common name that the KME's certificate must have."),
        click.option("--ca", type=file, help="Authority of the KME's certificate, PEM."),
        click.option("--key", type=file, help="Its private key, PEM."),
        click.option("--cert", type=file, help="The SAE's certificate, PEM."),
        click.option("--url", help="The KME, https://HOST:PORT, instead of --network and --as."),
        click.option("--as", "sae_id", metavar="SAE_ID", help="Which of the network's SAEs to be."),
        click.option(
            "--network",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Directory of `keyhaul network init`.",
        ),
    ):
        called = option(called)
    return called


@sae.command("status")
@click.argument("slave", callback=_named)
@click.option("--json", "as_json", is_flag=True, help="Print the status as it came.")
@_accessing
def status_command(access: Access, slave: str, as_json: bool) -> None:
    """Show what the KME says of the keys shared with SLAVE."""
    import msgspec

    status = _ask(access, lambda client: client.status(slave, deadline=access.deadline))
    if as_json:
        click.echo(msgspec.json.encode(status))
        return
    facts = [
        ("KMEs", f"{status.source_KME_ID} and {status.target_KME_ID}"),
        ("SAEs", f"{status.master_SAE_ID} (master) and {status.slave_SAE_ID} (slave)"),
        ("keys stored", f"{status.stored_key_count} of at most {status.max_key_count}"),
        ("key size", f"{status.key_size} bits ({status.min_key_size} to {status.max_key_size})"),
        ("keys per request", f"at most {status.max_key_per_request}"),
        ("additional slaves", f"at most {status.max_SAE_ID_count}" if status.max_SAE_ID_count else "not supported"),
    ]
    for name, value in facts:
        click.echo(f"{name:18}{value}")


def _delivery(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both ways of getting keys share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the key container as it came: with the keys."),
        click.option("--show-keys", is_flag=True, help="Show the keys themselves, in base64."),
        click.option("--output", type=click.Path(path_type=Path), help="Write the keys to this new file (mode 0600)."),
        click.option(
            "--encoding",
            type=click.Choice(["base64", "raw"]),
            default="base64",
            show_default=True,
            help="Of --output: a line for each key, or the bytes one after the other.",
        ),
    ):
        command = option(command)
    return command


@sae.command("get-key")
@click.argument("slave", callback=_named)
@click.option("--number", type=click.IntRange(min=1), default=1, show_default=True, help="Keys.")
@click.option("--size", type=click.IntRange(min=1), help="Bits of each key; the KME's default if not given.")
@click.option("--additional-slave", "additional_slaves", multiple=True, metavar="SAE_ID", help="May be repeated.")
@_delivery
@_accessing
def get_key(
    access: Access, slave: str, number: int, size: int | None, additional_slaves: tuple[str, ...], **delivery: Any
) -> None:
    """Get keys shared with SLAVE; tell SLAVE their IDs."""
    _deliver(
        access,
        lambda client: client.get_key(
            slave, number=number, size=size, additional_slaves=additional_slaves, deadline=access.deadline
        ),
        **delivery,
    )


@sae.command("get-key-with-id")
@click.argument("master", callback=_named)
@click.argument("key_ids", metavar="KEY_ID...", nargs=-1, required=True, type=click.UUID)
@_delivery
@_accessing
def get_key_with_id(access: Access, master: str, key_ids: tuple[UUID, ...], **delivery: Any) -> None:
    """Get the keys that MASTER got before, by their IDs."""
    if len(set(key_ids)) != len(key_ids):
        raise click.UsageError("a KEY_ID is given twice")
    _deliver(access, lambda client: client.get_key_with_ids(master, key_ids, deadline=access.deadline), **delivery)


def _deliver(
    access: Access,
    call: Callable[[Client014], Awaitable[KeyContainer]],
    *,
    as_json: bool,
    show_keys: bool,
    output: Path | None,
    encoding: str,
) -> None:
    import msgspec

    if output is None and encoding != "base64":
        raise click.UsageError(f"--encoding {encoding} goes with --output")
    file = None if output is None else _create(output)
    try:
        container = _ask(access, call)
    except BaseException:
        if output is not None and file is not None:
            os.close(file)
            output.unlink()
        raise
    if file is not None:
        with open(file, "wb") as stream:
            for key in container.keys:
                stream.write(key.key if encoding == "raw" else b64encode(key.key) + b"\n")
    if as_json:
        click.echo(msgspec.json.encode(container))
        return
    click.echo(f"{'key ID':38}{'key' if show_keys else 'bits'}")
    for key in container.keys:
        click.echo(f"{key.key_ID!s:38}{_shown(key, show_keys)}")
    if output is not None:
        number = len(container.keys)
        click.echo(f"{number} key{'' if number == 1 else 's'} written to {output}", err=True)


def _shown(key: Key, show_keys: bool) -> str:
    return b64encode(key.key).decode() if show_keys else str(8 * len(key.key))


def _create(output: Path) -> int:
    """Open a new file that only this user may read, before keys leave the KME that could then not be written."""
    try:
        return os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        advice = "; choose another file, none is overwritten" if isinstance(error, FileExistsError) else ""
        raise click.BadParameter(f"{output}: {error.strerror}{advice}", param_hint="--output") from None


def _ask(access: Access, call: Callable[[Client014], Awaitable[Result]]) -> Result:
    """Make one call; where it fails say why and end with the exit code that tells."""
    from keyhaul.runtime.interface import StartError
    from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable
    from keyhaul.transport.tls import classic_client

    async def ask() -> Result:
        client = Client014(
            access.url, classic_client(access.certificate, access.key, access.trust), expected_kme=access.kme
        )
        try:
            return await call(client)
        finally:
            await client.close()

    try:
        return asyncio.run(ask())
    except (StartError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except Etsi014Unreachable as error:
        raise Failed(f"{access.url} cannot be reached: {_why(str(error))}", UNREACHABLE) from None
    except Etsi014Error as error:
        _refused(error)


def _why(reason: str) -> str:
    """A reason for people: what the HTTP client says of a connection, without its own notation."""
    if "Connect call failed" in reason:
        return "nobody listens there. Does the UKMS run, and is the address right?"
    if "certificate verification failed" in reason:
        cause = re.search(r"certificate verification failed: ([^'\")]+?)(?: \(depth \d+\))?['\")]", reason)
        return f"its certificate is not accepted ({cause[1] if cause else reason}). Is --ca the authority of this KME?"
    return re.sub(r"^\[Errno \d+\] ", "", reason)


def _refused(error: Etsi014Error) -> NoReturn:
    if error.status == 503:
        retry = "" if error.retry_after is None else f"; Retry-After: {error.retry_after:g} s"
        raise Failed(f"the KME has no keys for this at present: {error}{retry}", EXHAUSTED)
    for detail in error.details:
        click.echo(json.dumps(detail), err=True)
    raise Failed(f"the KME refused: {error}", REFUSED)


def _entries(network: Path) -> dict[str, dict[str, Any]]:
    path = network / "network.json"
    try:
        return {entry["id"]: entry for entry in json.loads(path.read_text())["saes"]}
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise click.UsageError(f"{path} is not what `keyhaul network init` writes") from None


def _from_network(network: Path, sae_id: str, kme: str | None, deadline: float) -> Access:
    entries = _entries(network)
    if sae_id not in entries:
        raise click.UsageError(f"the network has no SAE {sae_id}; it has {', '.join(entries)}")
    entry = entries[sae_id]
    try:
        return Access(
            entry["ukms"],
            network / entry["certificate"],
            network / entry["key"],
            network / entry["ca"],
            kme or entry.get("kme"),
            deadline,
        )
    except (KeyError, TypeError):
        raise click.UsageError(f"{network / 'network.json'} lacks something of SAE {sae_id}") from None
