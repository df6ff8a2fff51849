"""Material for what is new in a network that was laid out before. Nothing that is there is touched.

Each part, a service's or one end of a link, is made whole beside the network and then put in place by one renaming: a
process that dies in between leaves parts that are complete, and the next one makes the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.command.laboratory.material import LINK_KEY, Material, link_directory, module_directory
from keyhaul.config.controllers import STATEMENT_KEY
from keyhaul.config.description import Description, LinkDescription
from keyhaul.config.plan import Service, end
from keyhaul.config.services import CkmsConfig, QkdmConfig
from keyhaul.identity import secretfile
from keyhaul.identity.custody import Custody
from keyhaul.identity.keys import load_link_private
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.randomness import Source, label

_STAGING = ".apply-"


class Additions:
    """Makes what is missing.

    Args:
        network: the new description.
        target: its services.
        directory: the network's.
        source: of secrets.
    """

    def __init__(self, network: Description, target: Iterable[Service], directory: Path, source: Source) -> None:
        self._network = network
        self._services = {service.name: service for service in target}
        self._directory = directory
        self._staging = directory / f"{_STAGING}{label()}"
        custody = Custody(directory / "authorities")
        self._material = Material(network, custody, self._staging, source, durable=True)

    def make(self) -> None:
        """Make it.

        Raises:
            IdentityError: an authority's key is not here, or a key cannot be read.
            OSError: a file cannot be written.
        """
        for left in self._directory.glob(f"{_STAGING}*"):
            shutil.rmtree(left)
        self._staging.mkdir(mode=0o700)
        try:
            for service in self._services.values():
                if isinstance(service.config, CkmsConfig):
                    self._carrier(service, service.config)
                elif isinstance(service.config, QkdmConfig):
                    self._modules(service, service.config)
            for link in self._network.link:
                if self._network.roles_of(link) == (Role.CKMS, Role.CKMS):
                    self._link(link)
        finally:
            shutil.rmtree(self._staging)

    def _carrier(self, service: Service, config: CkmsConfig) -> None:
        if self._is_there(service.directory):
            return
        self._material.identity(service)
        if config.controller is not None:
            self._material.gnmi(service)
            self._material.pinned(service, self._statement_keys())
        self._put(service.directory)

    def _modules(self, service: Service, config: QkdmConfig) -> None:
        if not self._is_there(service.directory):
            self._material.module_host(service)
            self._put(service.directory)
        for module in config.module:
            here = f"{service.directory}/{module_directory(module.link)}"
            if not self._is_there(here):
                self._material.module(service, module)
                self._put(here)

    def _link(self, link: LinkDescription) -> None:
        first, second = (self._services[end(self._network, link, node)] for node in (link.a, link.b))
        places = [f"{service.directory}/{link_directory(link.id)}" for service in (first, second)]
        made = [place for place in places if self._is_there(place)]
        # A secret that one end has already is the other's, too.
        secret = secretfile.read(self._directory / made[0] / "bootstrap") if made else self._material.bootstrap()
        for service, other, place in ((first, second, places[0]), (second, first, places[1])):
            if place not in made:
                self._material.link_end(service, link.id, self._link_key(other.name), secret)
                self._put(place)

    def _link_key(self, name: ServiceName) -> MLDSA65PublicKey:
        return load_link_private(self._directory / self._services[name].directory / LINK_KEY).public_key()

    def _statement_keys(self) -> list[tuple[NodeId, MLDSA65PublicKey]]:
        return [
            (name.node, load_link_private(self._directory / service.directory / STATEMENT_KEY).public_key())
            for name, service in self._services.items()
            if name.role is Role.CONTROLLER
        ]

    def _is_there(self, place: str) -> bool:
        return (self._directory / place).is_dir()

    def _put(self, place: str) -> None:
        destination = self._directory / place
        destination.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._staging / place
        settle(*(Path(below) for below, _, _ in os.walk(part)))
        part.rename(destination)
        settle(destination.parent, destination.parent.parent)


def settle(*directories: Path) -> None:
    """Have what was put into directories, or taken out, survive a power cut."""
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
