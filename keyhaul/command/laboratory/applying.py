"""A changed description put in force in a network that was laid out, whether it runs or not.

What has begun is written down beside the network before anything changes, and taken away when all is done: whoever
finds it there does everything once more, and what was done already stays as it is. The description that the network
was made from is replaced last.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from keyhaul.command.laboratory.additions import Additions, settle
from keyhaul.command.laboratory.files import Laboratory
from keyhaul.command.laboratory.listing import (
    LISTING_FILE,
    NETWORK_FILE,
    config_content,
    config_file,
    listing,
    listing_content,
    network_content,
)
from keyhaul.command.laboratory.material import link_directory, module_directory
from keyhaul.command.laboratory.running import NotApplied, Running
from keyhaul.config.carrier import encode
from keyhaul.config.changes import compare
from keyhaul.config.controllers import PLAN_FILE, carrier_plan
from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.former import Former, former
from keyhaul.config.loader import load
from keyhaul.config.plan import Service, end, services
from keyhaul.config.services import CkmsConfig, QkdmConfig
from keyhaul.config.transition import Configs, Transition, transition
from keyhaul.identity import secretfile
from keyhaul.identity.names import Role
from keyhaul.randomness import Source, label, random_bytes

BEGUN = "applying"
"""There while a description is being applied."""

SETTLING = 5.0
"""Seconds for batches on their way, and for the controller, before what they used goes."""

STOPPING = 15.0
"""Seconds for services that are gone from the network to end."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done."""

    running: bool
    """Whether anything of the network ran."""
    started: tuple[str, ...]
    """Services that are new."""
    stopped: tuple[str, ...]
    reloaded: tuple[str, ...]
    restart: dict[str, list[str]]
    """What of whose configuration only a restart brings."""


class Applying:
    """One description, and the network that it is for.

    Args:
        directory: of the network.
        changed: the description, with the addresses that the network has.
        source: of labels and secrets.

    Raises:
        ConfigurationError: the description that the network was made from cannot be read.
    """

    def __init__(self, directory: Path, changed: Description, source: Source = random_bytes) -> None:
        self._directory = directory
        self._changed = changed
        self._source = source
        self._before = load_description(directory / NETWORK_FILE)
        self.changes = compare(self._before, changed)
        self.interrupted = (directory / BEGUN).exists()
        """Whether somebody began to apply a description, this one or another, and did not end."""

    def apply(self, timeout: float, tell: Callable[[str], None]) -> Done:
        """Put it in force.

        Args:
            timeout: seconds until what is new must serve.
            tell: takes lines for people.

        Raises:
            NotApplied: a service did not take it, or is not up in time; apply it again.
            ConfigurationError: a configuration of the network has errors.
            IdentityError: an authority's key is not here.
            NoNetwork: the network's list of services is not what was written.
            OSError: a file cannot be written.
        """
        with _alone(self._directory):
            if load_description(self._directory / NETWORK_FILE) != self._before:
                raise NotApplied(
                    f"another description was applied to {self._directory} meanwhile: look, and apply again"
                )
            present, known = self._configurations()
            target = services(self._changed, self._source, known)
            content = network_content(self._changed)
            secretfile.write(self._directory / BEGUN, content)
            Additions(self._changed, target, self._directory, self._source).make()
            steps = transition(present, (one for one in target if one.name.role in (Role.CKMS, Role.QKDM)))
            done = asyncio.run(self._go(present, target, steps, timeout, tell))
            self._tidy(target)
            secretfile.write(self._directory / NETWORK_FILE, content)
            (self._directory / BEGUN).unlink()
            settle(self._directory)
        return done

    def _configurations(self) -> tuple[Configs, Former]:
        """Those of CKMSs and modules that there are."""
        carriers: dict[str, CkmsConfig] = {}
        modules: dict[str, QkdmConfig] = {}
        for node in sorted((self._directory / "nodes").iterdir()):
            if (file := node / Role.CKMS / "config.toml").exists():
                carriers[node.name] = load(file, CkmsConfig)
            if (file := node / Role.QKDM / "config.toml").exists():
                modules[node.name] = load(file, QkdmConfig)
        present: Configs = {f"{Role.CKMS}-{node}": config for node, config in carriers.items()}
        present |= {f"{Role.QKDM}-{node}": config for node, config in modules.items()}
        return present, former(carriers, modules)

    async def _go(
        self, present: Configs, target: list[Service], steps: Transition, timeout: float, tell: Callable[[str], None]
    ) -> Done:
        before = Laboratory.read(self._directory)
        shall = {service.name.id for service in target}
        gone = [service for service in before.services if service.id not in shall]
        nodes = {node.name for node in self._before.node}
        new = [service.name.id for service in target if service.name.node not in nodes]
        files = _Files(self._directory, target)
        if not await Running(before).anything():
            files.write(present, steps.left)
            files.plan(self._changed)
            files.list(self._changed)
            return Done(False, tuple(new), tuple(service.id for service in gone), (), {})

        told = [
            name
            for name, left in steps.left.items()
            if name not in new and (self.interrupted or not left == steps.joined[name] == present.get(name))
        ]
        modules = [name for name in told if name.startswith(Role.QKDM)]
        carriers = [name for name in told if name.startswith(Role.CKMS)]
        files.write(present, steps.joined)
        files.list(self._changed, [service.id for service in gone])
        running = Running(Laboratory.read(self._directory))
        kept = running.look_again()
        if new:
            tell(f"Starting {', '.join(new)}" if kept else f"Start by keyhaul serve: {', '.join(new)}")
        await running.reload(modules)
        restart = await running.reload(carriers)
        await running.serving(new, self._ends(), timeout)

        files.write(steps.joined, steps.switched)
        files.plan(self._changed)
        restart |= await running.reload(carriers)

        if gone or steps.left != steps.switched:
            await asyncio.sleep(SETTLING)
            files.write(steps.switched, steps.left)
            restart |= await running.reload(carriers)
            restart |= await running.reload(modules)
            files.list(self._changed)
            running.look_again()
            await running.gone(gone, STOPPING)
        rest = {name: fields for name, fields in restart.items() if fields}
        return Done(True, tuple(new), tuple(service.id for service in gone), tuple(told), rest)

    def _ends(self) -> list[tuple[str, str]]:
        """The ends of links that are new, and switched on: service and link."""
        links = {link.id for link in self._before.link}
        return [
            (end(self._changed, link, node).id, link.id)
            for link in self._changed.link
            for node in (link.a, link.b)
            if link.enabled and link.id not in links
        ]

    def _tidy(self, target: list[Service]) -> None:
        """Take the material of links and nodes away that are gone; that of a node stays beside the network."""
        nodes = {service.name.node for service in target}
        for node in tuple((self._directory / "nodes").iterdir()):
            if node.name not in nodes:
                removed = self._directory / "removed"
                removed.mkdir(mode=0o700, exist_ok=True)
                node.rename(removed / f"{node.name}-{label()}")
                settle(removed, node.parent)
        for service in target:
            match service.config:
                case CkmsConfig(link=links):
                    kept = {link_directory(link.id) for link in links}
                case QkdmConfig(module=modules):
                    kept = {module_directory(module.link) for module in modules}
                case _:
                    continue
            here = self._directory / service.directory
            for place in (*here.glob(link_directory("*")), *here.glob(module_directory("*"))):
                if str(place.relative_to(here)) not in kept:
                    shutil.rmtree(place)


class _Files:
    """What is written of a network that is laid out; a file whose content stays is left alone."""

    def __init__(self, directory: Path, target: list[Service]) -> None:
        self._directory = directory
        self._services = target
        self._before = json.loads((directory / LISTING_FILE).read_bytes())

    def write(self, before: Configs, after: Configs) -> None:
        """Write the configurations that are not what they were."""
        for service in self._services:
            config = after.get(service.name.id)
            if config is not None and config != before.get(service.name.id):
                secretfile.write(
                    self._directory / config_file(service), config_content(replace(service, config=config))
                )

    def plan(self, network: Description) -> None:
        """Tell the controllers what there is."""
        content = encode(carrier_plan(network))
        for service in self._services:
            if service.name.role is Role.CONTROLLER:
                self._put(f"{service.directory}/{PLAN_FILE}", content)

    def list(self, network: Description, leaving: Collection[str] = ()) -> None:
        """Tell tools, and whoever keeps the network up, what there is; services that are about to leave, too."""
        facts = listing(network, self._services, self._directory)
        facts["services"] += [entry for entry in self._before["services"] if entry["id"] in leaving]
        self._put(LISTING_FILE, listing_content(facts))

    def _put(self, path: str, content: bytes) -> None:
        place = self._directory / path
        if place.read_bytes() != content:
            secretfile.write(place, content)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from applying a description meanwhile.

    Raises:
        NotApplied: somebody does.
    """
    lock = os.open(directory / "run" / "apply.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise NotApplied(f"somebody is applying a description to {directory} at this moment: wait for that") from None
    finally:
        os.close(lock)
