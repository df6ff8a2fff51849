"""The way to the QKD module of one end of a link: a client of ETSI GS QKD 014 with this KMS's P-256 certificate."""

from __future__ import annotations

from pathlib import Path

from keyhaul.config.loader import resolve
from keyhaul.config.services import LinkSection
from keyhaul.identity.files import ServiceIdentity
from keyhaul.runtime.interface import StartError
from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.tls import classic_client


def module_client(section: LinkSection, directory: Path, identity: ServiceIdentity) -> Client014:
    """Return a client of the module that a link's section names; the caller closes it.

    Raises:
        StartError: the section or the identity lacks something.
    """
    if identity.classic_certificate is None or identity.classic_key is None:
        raise StartError(
            f"link {section.id}: its QKD module needs classic_certificate and classic_key in the table [identity]"
        )
    trust = resolve(directory, section.module.trust)
    tls = classic_client(identity.classic_certificate, identity.classic_key, trust)
    try:
        return Client014(section.module.url, tls, expected_kme=section.module.kme)
    except ValueError as error:
        raise StartError(f"link {section.id}: {error}") from None
