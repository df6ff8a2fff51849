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

FILL_SECONDS = 5.0
BEFORE_CUT_SECONDS = 6.0
AFTER_CUT_SECONDS = 8.0
AFTER_RESTORE_SECONDS = 6.0
T_KEY_SAMPLES = 300


@click.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--master", default="second-berlin-1", show_default=True, help="The sending encryptor (an SAE).")
@click.option("--slave", default="second-bonn-1", show_default=True, help="The receiving one, at another site.")
@click.option("--cut", default="8-9", show_default=True, help="The link to cut.")
@click.option("--detour", default="ckms-16", show_default=True, help="The CKMS whose relaying is shown.")
@click.option("--keep", is_flag=True, help="Leave the network up, in ./network, and print how to use it.")
@click.option("--loopback", default=None, metavar="ADDRESS", help="Range of loopback addresses, e.g. 127.16.0.0.")
def demo(description: Path, master: str, slave: str, cut: str, detour: str, keep: bool, loopback: str | None) -> None:
    """Run the network of DESCRIPTION with two encryptors, cut a link, and show what it took."""
    console = Console()
    scratch = None if keep else Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    directory = Path("network") if scratch is None else scratch / "n"
    try:
        with _network(console, description, directory, loopback, keep=keep):
            scene = asyncio.run(_show(console, NetworkFiles.read(directory), (master, slave), cut, detour))
        _tell_figures(console, scene)
        _tell_next(console, description, (NetworkFiles.read(directory), master, slave) if keep else None)
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


async def _show(console: Console, network: NetworkFiles, names: tuple[str, str], cut: str, detour: str) -> Scene:
    try:
        master, slave = (network.sae(name) for name in names)
    except LookupError as error:
        raise click.ClickException(str(error)) from None
    scene = Scene(f"{master['id']} and {slave['id']}, each at its own UKMS", detour=detour)
    async with _client(master) as sender, _client(slave) as receiver:
        with Live(console=console, refresh_per_second=4, get_renderable=lambda: draw(scene)):
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(network, scene))
                await _play(group, network, scene, cut, (sender, receiver), (master["id"], slave["id"]))
                watching.cancel()
    return scene


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
    await _measure(scene, "all links there", clients, names)
    before, relayed = scene.traffic.frames_opened, scene.detour_bytes
    await _link(network, cut, "cut")
    scene.cut = cut
    scene.steps.append(f"link {cut} is cut: no keys, no messages cross it; the traffic goes on")
    await _measure(scene, f"{cut} cut, over {scene.detour}", clients, names)
    await asyncio.sleep(AFTER_CUT_SECONDS)
    scene.steps.append(
        f"since the cut {scene.traffic.frames_opened - before} frames, "
        f"and {8 * (scene.detour_bytes - relayed)} bits of CN keys over {scene.detour}; link {cut} is restored"
    )
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


async def _measure(scene: Scene, when: str, clients: tuple[Client014, Client014], names: tuple[str, str]) -> None:
    scene.steps.append(f"T_key of {T_KEY_SAMPLES} keys, one after the other ({when})")
    scene.t_key_ms[when] = [await _t_key(*clients, *names) for _ in range(T_KEY_SAMPLES)]


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


def _tell_figures(console: Console, scene: Scene) -> None:
    traffic = scene.traffic
    assert traffic is not None
    console.print(
        f"{traffic.frames_opened} of {traffic.frames_sent} frames opened, {traffic.frames_refused} refused, "
        f"{traffic.keys_used} keys used, {traffic.keys_late} late."
    )
    for when, samples in scene.t_key_ms.items():
        median, p99 = quantiles(samples)
        console.print(f"[bold]T_key: median {median:.1f} ms, p99 {p99:.1f} ms[/bold] over {len(samples)} keys, {when}")
    console.print(f"       (DemoQuanDT's field network, over the same chain of nodes: {DEMOQUANDT_T_KEY_MS:.0f} ms)")


def _tell_next(console: Console, description: Path, kept: tuple[NetworkFiles, str, str] | None) -> None:
    if kept is None:
        console.print(
            f"\nTo leave the network up: [bold].venv/bin/keyhaul demo --keep {description}[/bold] "
            "(it then prints curl lines that work as pasted)."
        )
        return
    network, master, slave = kept
    console.print("\nThe network stays up. One encryptor gets a key, the other the same, with nothing but curl:\n")
    console.file.write(
        f'KEYS=$({_curl(network.sae(master), f"{slave}/enc_keys")}); echo "$KEYS"\n'
        'KEY_ID=$(echo "$KEYS" | sed \'s/.*"key_ID": *"\\([^"]*\\)".*/\\1/\')\n'
        f"{_curl(network.sae(slave), f'{master}/dec_keys?key_ID=$KEY_ID')}; echo\n"
    )
    console.print(f"\nStop it with [bold].venv/bin/keyhaul network down {network.directory}[/bold].")


def _curl(entry: dict[str, Any], tail: str) -> str:
    files = f"--cert {entry['certificate']} --key {entry['key']} --cacert {entry['ca']}"
    return f'curl --silent {files} "{entry["ukms"]}/api/v1/keys/{tail}"'
