"""Where commands find the controllers, and whose certificate they show there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhaul.config.addresses import MalformedAddress, parse_address

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Places:
    """Where the controllers are, and whose certificate is shown to them."""

    controllers: tuple[tuple[str, str], ...]
    """Service id and address of each."""
    identity: Path
    """Directory with certificate.pem, key.pem, trust.pem and, where there are lists, crl.pem."""


def controller_options(command: Command) -> Command:
    """Add the options that lead to a controller."""
    for option in reversed(
        (
            click.option(
                "--network",
                "directory",
                type=click.Path(file_okay=False, path_type=Path),
                help="Directory of a laid-out network.",
            ),
            click.option(
                "--controller",
                "controllers",
                multiple=True,
                metavar="ID@HOST:PORT",
                help="Instead: a controller, e.g. controller-16@10.0.0.16:7446 (repeatable).",
            ),
            click.option(
                "--identity",
                type=click.Path(file_okay=False, path_type=Path),
                help="With it: directory with your certificate.pem, key.pem, trust.pem and crl.pem.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


def places(directory: Path | None, controllers: tuple[str, ...], identity: Path | None, role: str = "viewer") -> Places:
    """Find the controllers that options lead to; `role` is whose certificate of a laid-out network is shown."""
    if (directory is None) == (not controllers):
        raise click.UsageError("say where the controller is: --network, or --controller with --identity")
    if directory is None:
        if identity is None:
            raise click.UsageError("--controller needs --identity: the certificate that you show")
        return Places(tuple(_named(text) for text in controllers), identity)
    listing = _listing(directory)
    found = tuple((one["id"], one["address"]) for one in listing["services"] if one["role"] == "controller")
    if not found:
        raise click.ClickException(
            f"the network in {directory} has no controller: give a node of its description the role controller and "
            "lay it out anew"
        )
    own = next((Path(one["certificate"]).parent for one in listing.get("operators", ()) if one["role"] == role), None)
    if identity is None and own is None:
        raise click.ClickException(f"the network in {directory} has no certificate of a {role}: give --identity")
    return Places(found, identity or own or directory)


def _listing(directory: Path) -> dict[str, Any]:
    path = directory / "network.json"
    try:
        listing: dict[str, Any] = json.loads(path.read_bytes())
        services = [(one["role"], one["id"], one["address"]) for one in listing["services"]]
        assert services is not None
    except OSError as error:
        raise click.ClickException(
            f"{path}: {error.strerror}; lay a network out by `keyhaul network init DESCRIPTION --out {directory}`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{path} is not what `keyhaul network init` writes") from error
    return listing


def _named(text: str) -> tuple[str, str]:
    service, _, address = text.partition("@")
    try:
        parse_address(address)
    except MalformedAddress:
        service = ""
    if not service.startswith("controller-"):
        raise click.BadParameter(
            f"{text!r} is no controller with its address, e.g. controller-16@10.0.0.16:7446",
            param_hint="--controller",
        )
    return service, address
