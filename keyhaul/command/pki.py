"""`keyhaul pki`: authorities, requests, certificates, revocation and link keys, the production way.

Secrets are never on the command line: a passphrase comes from a prompt or from a file of mode 0600.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding

from keyhaul.command.pki_options import (
    FILE,
    PATH,
    ROLES,
    as_options,
    authorities_options,
    check_domain,
    check_writable,
    failures,
    json_option,
    new_passphrase,
    now,
    subject_from,
    subject_options,
    tell,
    unlocked,
)
from keyhaul.identity import authority as signing
from keyhaul.identity import keys, revocation, secretfile
from keyhaul.identity.authority import Classic
from keyhaul.identity.custody import ROOT, SERVICE_ROLES, Custody
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import load_certificates
from keyhaul.identity.names import Role
from keyhaul.identity.requests import checked_key, make_request
from keyhaul.identity.show import describe

_REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "superseded": x509.ReasonFlags.superseded,
    "cessation": x509.ReasonFlags.cessation_of_operation,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


@click.group()
def pki() -> None:
    """Make and inspect authorities, certificates, revocation lists and link keys."""


@pki.command()
@authorities_options
@click.option("--domain", required=True, help="The domain in every service's name, e.g. qkd.example.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=ROLES,
    help=f"Roles that get an intermediate (default: {', '.join(SERVICE_ROLES)}).",
)
@click.option("--unencrypted", is_flag=True, help="Keep the private keys without a passphrase (laboratories).")
@json_option
def init(
    authorities: Path,
    passphrase_file: Path | None,
    domain: str,
    roles: tuple[str, ...],
    unencrypted: bool,
    as_json: bool,
) -> None:
    """Make a root, an intermediate for each role, and the P-256 authorities; what is there already stays."""
    with failures():
        check_domain(domain)
        if unencrypted and passphrase_file is not None:
            raise click.UsageError("--unencrypted and --passphrase-file exclude each other")
        passphrase = None if unencrypted else new_passphrase(passphrase_file)
        custody = Custody(authorities, passphrase)
        authorities.parent.mkdir(parents=True, exist_ok=True)
        made = custody.complete(domain, [Role(role) for role in roles] or SERVICE_ROLES, now())
    facts = {"directory": str(authorities), "made": made, "encrypted": not unencrypted}
    if not made:
        tell(as_json, facts, f"{authorities} has all of them already; nothing was made.")
        return
    tell(
        as_json,
        facts,
        f"Made in {authorities}: {', '.join(made)} ({'with' if not unencrypted else 'WITHOUT'} passphrase).\n"
        f"Next: move {authorities / ROOT / 'key.pem'} to a machine without a network; copy trust.pem and crl.pem to\n"
        "every service; on each node run `keyhaul pki csr`, and here `keyhaul pki sign`.",
    )


@pki.command()
@subject_options
@click.option("--out", required=True, type=PATH, help="Directory for key.pem and request.pem.")
@click.option("--classic", is_flag=True, help="A P-256 key: the classic twin of a service's certificate.")
@json_option
def csr(out: Path, classic: bool, as_json: bool, **options: Any) -> None:
    """Make a private key and a signing request, on the node that will use them."""
    with failures():
        subject = subject_from(options)
        prefix = "classic-" if classic and subject.service is not None else ""
        key_path, request_path = out / f"{prefix}key.pem", out / f"{prefix}request.pem"
        if key_path.exists():
            raise IdentityError(
                f"{key_path} exists. To renew, make the request in a new directory, and move key and certificate "
                "into place together once it is signed"
            )
        small = classic or subject.service is None
        key: keys.PrivateKey = generate_private_key(SECP256R1()) if small else keys.generate()
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        secretfile.write(request_path, make_request(subject, key).public_bytes(Encoding.PEM))
        secretfile.write(key_path, keys.private_pem(key))
    tell(
        as_json,
        {
            "subject": subject.common_name,
            "uri": subject.service.uri if subject.service else None,
            "key": str(key_path),
            "request": str(request_path),
            "algorithm": "P-256" if small else "ML-DSA-65",
        },
        f"Made {'a P-256' if small else 'an ML-DSA-65'} key for {subject.common_name} in {key_path}\n"
        f"(mode 0600; it stays here) and its request in {request_path}.\n"
        f"Next: take the request to the authorities and run there:\n"
        f"  keyhaul pki sign {request_path.name} --authorities DIR {as_options(options, prefix + 'certificate.pem')}",
    )


@pki.command()
@click.argument("request", type=FILE)
@authorities_options
@subject_options
@click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 5 * 365), help="Lifetime of the certificate."
)
@click.option("--out", required=True, type=PATH, help="File for the certificate, with its intermediate behind it.")
@json_option
def sign(
    request: Path,
    authorities: Path,
    passphrase_file: Path | None,
    days: int,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Sign a request, if it asks for exactly the subject named here."""
    with failures():
        check_writable(out)
        custody = Custody(authorities)
        options["domain"] = options["domain"] or (custody.domain() if options["role"] else None)
        subject = subject_from(options)
        try:
            asked = x509.load_pem_x509_csr(request.read_bytes())
        except ValueError:
            raise IdentityError(f"{request} holds no request in PEM") from None
        key = checked_key(asked, subject)
        name = subject.authority(key)
        if subject.service is not None and subject.service.domain != custody.domain():
            raise IdentityError(f"{subject.service.uri} is of another domain than {custody.domain()}")
        authority = unlocked(authorities, name, passphrase_file).authority(name)
        if authority.certificate.not_valid_after_utc <= now():
            raise IdentityError(f"authority {name!r} expired on {authority.certificate.not_valid_after_utc:%Y-%m-%d}")
        lifetime = timedelta(days=days)
        if subject.service is not None:
            certificate = signing.sign_service(authority, subject.service, key, now(), lifetime)
        elif subject.purpose is Classic.SAES:
            certificate = signing.sign_client(authority, subject.common_name, key, now(), lifetime)
        else:
            certificate = signing.sign_server(authority, subject.common_name, subject.hosts, key, now(), lifetime)
        custody.record(name, certificate)
        secretfile.write(out, signing.pem(certificate, *authority.chain))
    until = certificate.not_valid_after_utc
    tell(
        as_json,
        {
            "certificate": str(out),
            "subject": subject.common_name,
            "uri": subject.service.uri if subject.service else None,
            "authority": name,
            "serial": f"{certificate.serial_number:x}",
            "not_after": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        f"Signed {subject.common_name}{f' ({subject.service.uri})' if subject.service else ''} by authority {name}:\n"
        f"serial {certificate.serial_number:x}, valid until {until:%Y-%m-%d}, in {out}.\n"
        "Next: put it beside its key on the node; a running service picks it up by itself.",
    )


@pki.command()
@click.argument("file", type=FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show what is in a file: certificates, a request, revocation lists or a public link key."""
    with failures():
        found = describe(file, now())
    lines = []
    for facts in found:
        lines.append(f"{facts['kind']}:")
        for field, value in facts.items():
            if field == "revoked":
                lines += [f"  revoked: {each['serial']} on {each['date']} ({each['reason']})" for each in value]
            elif field != "kind":
                lines.append(f"  {field.replace('_', ' ')}: {_shown(value)}")
    tell(as_json, {"file": str(file), "objects": found}, "\n".join(lines))


@pki.command()
@click.argument("certificates", nargs=-1, required=True, type=FILE)
@authorities_options
@click.option(
    "--reason", type=click.Choice(list(_REASONS)), default="unspecified", show_default=True, help="Kept in the list."
)
@click.option("--install", type=PATH, help="Also replace the lists of all services below this directory.")
@json_option
def revoke(
    certificates: tuple[Path, ...],
    authorities: Path,
    passphrase_file: Path | None,
    reason: str,
    install: Path | None,
    as_json: bool,
) -> None:
    """Put certificates on their authorities' revocation lists (the first certificate of each file)."""
    with failures():
        custody = Custody(authorities)
        if install is not None:
            custody.lists_below(install)
        revoked: dict[str, list[x509.Certificate]] = {}
        for path in certificates:
            certificate = load_certificates(path)[0]
            revoked.setdefault(custody.issuer(certificate), []).append(certificate)
        numbers = {}
        for name, leaves in revoked.items():
            reasons = [(leaf, _REASONS[reason]) for leaf in leaves]
            lists = unlocked(authorities, name, passphrase_file).sign_list(name, now(), reasons)
            numbers[name] = revocation.list_number(lists)
        installed = custody.install_lists(install) if install is not None else []
    subjects = [revocation.common_name(leaf.subject) for leaves in revoked.values() for leaf in leaves]
    tell(
        as_json,
        {"revoked": subjects, "lists": numbers, "reason": reason, "installed": [str(path) for path in installed]},
        f"Revoked {', '.join(subjects)} ({reason}); new lists: "
        + ", ".join(f"{name} number {number}" for name, number in numbers.items())
        + f".\n{_after_lists(authorities, installed)}",
    )


@pki.command()
@click.argument("name")
@authorities_options
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 365), help="Lifetime of the list.")
@click.option("--install", type=PATH, help="Also replace the lists of all services below this directory.")
@json_option
def crl(
    name: str, authorities: Path, passphrase_file: Path | None, days: int, install: Path | None, as_json: bool
) -> None:
    """Sign an authority's revocation list anew, before the present one runs out."""
    with failures():
        custody = unlocked(authorities, name, passphrase_file)
        if install is not None:
            custody.lists_below(install)
        lists = custody.sign_list(name, now(), lifetime=timedelta(days=days))
        installed = custody.install_lists(install) if install is not None else []
    number = revocation.list_number(lists)
    tell(
        as_json,
        {"authority": name, "number": number, "revoked": len(lists), "installed": [str(path) for path in installed]},
        f"Signed list number {number} of authority {name}: {len(lists)} revoked, good for {days} days.\n"
        f"{_after_lists(authorities, installed)}",
    )


@pki.command("link-key")
@click.argument("private", type=PATH)
@click.option("--public", type=PATH, help="File for the public half; without it, it is printed.")
@json_option
def link_key(private: Path, public: Path | None, as_json: bool) -> None:
    """Make a link key (or read the one that is there) and give its public half, for neighbours to pin."""
    with failures():
        if public is not None:
            check_writable(public)
        made = not private.exists()
        if made:
            private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            secretfile.write(private, keys.private_pem(keys.generate()))
        key = keys.load_link_private(private).public_key()
        text = keys.public_pem(key)
        if public is not None:
            secretfile.write(public, text)
    tell(
        as_json,
        {
            "private": str(private),
            "made": made,
            "public": str(public) if public else None,
            "public_key": text.decode(),
            "fingerprint": keys.fingerprint(key),
        },
        (f"Made a link key in {private} (mode 0600; it stays here).\n" if made else f"The link key in {private}.\n")
        + f"Fingerprint: {keys.fingerprint(key)}\n"
        + (f"Public half: {public}\n" if public else text.decode())
        + "Next: give the public half to each neighbour, as peer_link_key of its [[link]];\n"
        "compare fingerprints by voice.",
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _after_lists(authorities: Path, installed: list[Path]) -> str:
    if installed:
        return f"Replaced {len(installed)} files; running services pick them up by themselves."
    return (
        f"Next: copy {authorities / 'crl.pem'} to every service's crl.pem, and\n"
        f"{authorities / Classic.SAES / 'crl.pem'} to every UKMS's saes-crl.pem,\n"
        f"{authorities / Classic.SERVICES / 'crl.pem'} to every CKMS's services-crl.pem;\n"
        "running services pick them up by themselves."
    )
