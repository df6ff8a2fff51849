"""`keyhaul demo`: the demonstration, in under two minutes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from keyhaul.demo import observe
from keyhaul.demo.encryptors import Traffic, exchange
from keyhaul.demo.observe import NetworkFiles
from keyhaul.demo.view import DEMOQUANDT_T_KEY_MS, Scene, draw, quantiles
from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.tls import classic_client

FILL_SECONDS = 6.0
BEFORE_CUT_SECONDS = 8.0
AFTER_CUT_SECONDS = 14.0
AFTER_RESTORE_SECONDS = 6.0
T_KEY_SAMPLES = 300


@click.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cut", default="8-9", show_default=True, help="The link to cut.")
@click.option("--detour", default="ckms-16", show_default=True, help="The CKMS whose relaying is shown.")
@click.option("--keep", is_flag=True, help="Leave the network up, in ./network, and print how to use it.")
@click.option("--loopback", default=None, metavar="ADDRESS", help="Range of loopback addresses, e.g. 127.16.0.0.")
def demo(description: Path, cut: str, detour: str, keep: bool, loopback: str | None) -> None:
    """Run the network of DESCRIPTION with two encryptors, cut a link, and show what it took."""
    console = Console()
    scratch = None if keep else Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    directory = Path("network") if scratch is None else scratch / "n"
    try:
        with _network(console, description, directory, loopback, keep=keep):
            samples = asyncio.run(_show(console, NetworkFiles.read(directory), cut, detour))
        _tell_figures(console, samples)
        _tell_next(console, description, NetworkFiles.read(directory) if keep else None)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _network(
    console: Console, description: Path, directory: Path, loopback: str | None, *, keep: bool
) -> Iterator[None]:
    console.rule(f"[bold]Keyhaul: {description.stem}")
    addresses = ["--loopback", loopback] if loopback else []
    asyncio.run(_run("network", "init", str(description), "--out", str(directory), *addresses))
    start = time.monotonic()
    try:
        asyncio.run(_run("network", "up", str(directory), "--detach"))
        console.print(f"The network serves after {time.monotonic() - start:.1f} s.")
        yield
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            asyncio.run(_run("network", "down", str(directory)))


async def _run(*arguments: str) -> None:
    """Run a command of ours with its output shown."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "keyhaul.command.main", *arguments)
    if await process.wait():
        raise click.ClickException(f"keyhaul {' '.join(arguments)} failed; see above")


async def _show(console: Console, network: NetworkFiles, cut: str, detour: str) -> list[float]:
    master, slave = network.far_pair()
    scene = Scene(f"{master['id']} and {slave['id']}, each at its own UKMS", detour=detour)
    async with _client(master) as sender, _client(slave) as receiver:
        with Live(console=console, refresh_per_second=4, get_renderable=lambda: draw(scene)):
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(network, scene))
                await _play(group, network, scene, cut, (sender, receiver), (master["id"], slave["id"]))
                watching.cancel()
        console.print(f"Measuring T_key with {T_KEY_SAMPLES} keys, one after the other …")
        return [await _t_key(sender, receiver, master["id"], slave["id"]) for _ in range(T_KEY_SAMPLES)]


async def _play(
    group: asyncio.TaskGroup,
    network: NetworkFiles,
    scene: Scene,
    cut: str,
    clients: tuple[Client014, Client014],
    names: tuple[str, str],
) -> None:
    scene.steps.append("links fill with keys from their QKD modules")
    await asyncio.sleep(FILL_SECONDS)
    scene.traffic = Traffic()
    stop = asyncio.Event()
    talking = group.create_task(exchange(*clients, names, scene.traffic, stop))
    scene.steps.append("the encryptors start to talk; every second they change their key")
    await asyncio.sleep(BEFORE_CUT_SECONDS)
    before = scene.traffic.frames_opened
    await _link(network, cut, "cut")
    scene.cut = cut
    scene.steps.append(f"link {cut} is cut: its modules give no more keys")
    await asyncio.sleep(AFTER_CUT_SECONDS)
    scene.steps.append(f"{scene.traffic.frames_opened - before} frames since the cut; link {cut} is restored")
    await _link(network, cut, "restore")
    scene.cut = ""
    await asyncio.sleep(AFTER_RESTORE_SECONDS)
    stop.set()
    await talking


async def _link(network: NetworkFiles, link: str, action: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keyhaul.command.main", "link", action, link, "--network", str(network.directory),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if await process.wait():
        raise click.ClickException(f"keyhaul link {action} {link} failed")


async def _watch(network: NetworkFiles, scene: Scene) -> None:
    while True:
        scene.links = await observe.links(network)
        scene.detour_bytes = await observe.relayed(network, scene.detour)
        await asyncio.sleep(0.5)


async def _t_key(sender: Client014, receiver: Client014, master: str, slave: str) -> float:
    start = time.perf_counter()
    made = await sender.get_key(slave, deadline=10.0)
    taken = await receiver.get_key_with_ids(master, [made.keys[0].key_ID], deadline=10.0)
    elapsed = 1e3 * (time.perf_counter() - start)
    if made.keys[0].key != taken.keys[0].key:
        raise click.ClickException("the two encryptors got different keys")
    return elapsed


@contextlib.asynccontextmanager
async def _client(entry: dict[str, Any]) -> AsyncIterator[Client014]:
    tls = classic_client(Path(entry["certificate"]), Path(entry["key"]), Path(entry["ca"]))
    client = Client014(entry["ukms"], tls, expected_kme=None)
    try:
        yield client
    finally:
        await client.close()


def _tell_figures(console: Console, samples: list[float]) -> None:
    median, p99 = quantiles(samples)
    console.print(
        f"[bold]T_key: median {median:.2f} ms, p99 {p99:.2f} ms[/bold] over {len(samples)} keys from prepared buffers; "
        f"DemoQuanDT's field network: {DEMOQUANDT_T_KEY_MS / 1e3:.2f} s."
    )


def _tell_next(console: Console, description: Path, network: NetworkFiles | None) -> None:
    if network is None:
        console.print(
            f"\nTo leave the network up: [bold]keyhaul demo --keep {description}[/bold] "
            "(then it prints curl lines that work as pasted)."
        )
        return
    master, slave = network.far_pair()
    console.print("\nThe network stays up. Two encryptors' requests, as any HTTPS client makes them:\n")
    for entry, tail in ((master, f"{slave['id']}/enc_keys"), (slave, f"{master['id']}/dec_keys?key_ID=KEY_ID")):
        print(
            f"curl --cert {entry['certificate']} --key {entry['key']} --cacert {entry['ca']} "
            f"'{entry['ukms']}/api/v1/keys/{tail}'"
        )
    console.print(f"\nStop it with [bold]keyhaul network down {network.directory}[/bold].")
