"""Who is let in, decided from what gRPC says of a connection; and a connection without ML-KEM, for real."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import subprocess
import sys
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.peers import PERMITTED, Peers, Rpc
from keyhaul.agents.gnmi.tls import channel_credentials, server_credentials
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.names import Role, ServiceName
from keyhaul.transport.tls import TlsFiles
from keyhaul.transport.tls_policy import TlsUnusable
from tests.keyhaul.agents.gnmi.pki import CKMS, CONTROLLER, DAY, DOMAIN, Twins, leaf, service
from tests.keyhaul.agents.gnmi.running import Running, within


def context(pem: bytes, version: bytes = b"TLSv1.3", group: bytes = b"X25519MLKEM768") -> dict[str, list[bytes]]:
    return {"x509_pem_cert": [pem], "ssl_tls_version": [version], "ssl_negotiated_key_exchange_group": [group]}


def admitted(peers: Peers, said: dict[str, list[bytes]], twins: Twins, rpc: Rpc = Rpc.GET) -> ServiceName:
    return peers.admit(said, rpc, twins.now)


def refusal(peers: Peers, said: dict[str, list[bytes]], now: datetime.datetime, rpc: Rpc = Rpc.GET) -> Refused:
    with pytest.raises(Refused) as caught:
        peers.admit(said, rpc, now)
    return caught.value


@pytest.fixture
def own(tmp_path: Path) -> Twins:
    return Twins(tmp_path)


def test_only_the_controller_may_do_anything() -> None:
    assert {Role.CONTROLLER: frozenset(Rpc)} == PERMITTED


def test_the_controller_is_known_by_its_certificate(own: Twins) -> None:
    files = own.files(CONTROLLER)
    assert admitted(Peers(own.files(CKMS), DOMAIN), context(files.certificate.read_bytes()), own, Rpc.SET) == CONTROLLER


@pytest.mark.parametrize(
    ("version", "group"),
    [
        (b"TLSv1.2", b"X25519"),
        (b"TLSv1.3", b"X25519"),
        (b"TLSv1.3", b"P-256"),
        (b"TLSv1.3", b""),
        (b"", b"X25519MLKEM768"),
    ],
)
def test_what_a_quantum_computer_could_read_is_refused(own: Twins, version: bytes, group: bytes) -> None:
    pem = own.files(CONTROLLER).certificate.read_bytes()
    assert refusal(Peers(own.files(CKMS), DOMAIN), context(pem, version, group), own.now).code is Code.UNAUTHENTICATED


def test_a_connection_that_says_nothing_of_itself_is_refused(own: Twins) -> None:
    peers = Peers(own.files(CKMS), DOMAIN)
    assert refusal(peers, {}, own.now).code is Code.UNAUTHENTICATED
    said = context(own.files(CONTROLLER).certificate.read_bytes())
    assert refusal(peers, {**said, "x509_pem_cert": []}, own.now).code is Code.UNAUTHENTICATED
    assert refusal(peers, context(b"nonsense"), own.now).code is Code.UNAUTHENTICATED


def test_revocation_counts_from_the_next_rpc_on(own: Twins) -> None:
    target, files = own.files(CKMS), own.files(CONTROLLER)
    peers, said = Peers(target, DOMAIN), context(files.certificate.read_bytes())
    assert admitted(peers, said, own) == CONTROLLER
    own.revoke(leaf(files))
    own.write_crl(target)
    assert "revoked" in refusal(peers, said, own.now).message


def test_an_old_revocation_list_lets_nobody_in(own: Twins) -> None:
    target = own.files(CKMS)
    own.write_crl(target, own.now - 60 * DAY)
    said = context(own.files(CONTROLLER).certificate.read_bytes())
    assert "no current revocation list" in refusal(Peers(target, DOMAIN), said, own.now).message


def test_a_broken_revocation_list_leaves_the_former_in_force(own: Twins) -> None:
    target, files = own.files(CKMS), own.files(CONTROLLER)
    own.revoke(leaf(files))
    own.write_crl(target)
    peers, said = Peers(target, DOMAIN), context(files.certificate.read_bytes())
    assert "revoked" in refusal(peers, said, own.now).message
    assert target.crl is not None
    target.crl.write_text("nonsense")
    assert "revoked" in refusal(peers, said, own.now).message
    with pytest.raises(IdentityError):
        admitted(Peers(target, DOMAIN), said, own)


def test_a_list_that_somebody_else_signed_says_nothing(own: Twins, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    target, other = own.files(CKMS), Twins(tmp_path / "other")
    other.write_crl(target)
    said = context(own.files(CONTROLLER).certificate.read_bytes())
    assert "no current revocation list" in refusal(Peers(target, DOMAIN), said, own.now).message


def test_dates_count_while_a_connection_stands(own: Twins) -> None:
    said = context(own.files(CONTROLLER, lifetime=DAY).certificate.read_bytes())
    peers = Peers(own.files(CKMS), DOMAIN)
    assert admitted(peers, said, own) == CONTROLLER
    assert "expired" in refusal(peers, said, own.now + 2 * DAY).message
    assert "not valid yet" in refusal(peers, said, own.now - 2 * DAY).message


def test_trust_that_is_withdrawn_is_gone_at_once(own: Twins, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    target, said = own.files(CKMS, crl=False), context(own.files(CONTROLLER).certificate.read_bytes())
    peers = Peers(target, DOMAIN)
    assert admitted(peers, said, own) == CONTROLLER
    target.trust.write_bytes(Twins(tmp_path / "other").files(CKMS).trust.read_bytes())
    assert "not signed by an authority" in refusal(peers, said, own.now).message


def test_another_domain_is_refused(own: Twins) -> None:
    pem = own.files(service(Role.CONTROLLER, "1", "other.example")).certificate.read_bytes()
    refused = refusal(Peers(own.files(CKMS), DOMAIN), context(pem), own.now)
    assert (refused.code, DOMAIN in refused.message) == (Code.UNAUTHENTICATED, True)


@pytest.mark.parametrize("broken", ["certificate", "key", "trust"])
def test_files_that_cannot_be_used_stop_the_start(own: Twins, broken: str) -> None:
    for content in (None, "nonsense"):
        files = own.files(CKMS)
        place = getattr(files, broken)
        if content is None:
            place.unlink()
        else:
            place.write_text(content)
        with pytest.raises(TlsUnusable, match=broken):
            server_credentials(files, lambda: None)
        with pytest.raises(TlsUnusable, match=broken):
            channel_credentials(files)


def test_a_key_of_another_certificate_stops_the_start(own: Twins) -> None:
    files, other = own.files(CKMS), own.files(CONTROLLER)
    with pytest.raises(TlsUnusable, match="is not the private key"):
        server_credentials(TlsFiles(files.certificate, other.key, files.trust), lambda: None)


async def test_a_client_without_ml_kem_is_connected_and_refused(running: Running) -> None:
    """Python's ssl offers X25519 and no ML-KEM; the RPC is spelled out on h2."""
    files = running.twins.files(CONTROLLER)
    tls = ssl.create_default_context(cafile=str(files.trust))
    tls.check_hostname = False
    tls.load_cert_chain(files.certificate, files.key)
    tls.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(running.host, running.port, ssl=tls)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/gnmi.gNMI/Capabilities"),
        (":authority", "ckms-9"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, headers)
    body = gnmi_pb2.CapabilityRequest().SerializeToString()
    connection.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
    writer.write(connection.data_to_send())
    answer: dict[str, str] = {}
    data = b""
    while "grpc-status" not in answer:
        for event in connection.receive_data(await within(reader.read(65536))):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                answer.update((str(name), str(value)) for name, value in event.headers)
            if isinstance(event, h2.events.DataReceived):
                data += event.data
        writer.write(connection.data_to_send())
    writer.close()
    assert (answer["grpc-status"], data) == (str(Code.UNAUTHENTICATED.value), b"")
    assert "X25519 is not acceptable" in answer["grpc-message"]


def test_grpc_that_was_there_first_would_take_tls_1_2_and_is_not_used(own: Twins) -> None:
    files = own.files(CKMS)
    program = f"""
import grpc
from pathlib import Path
from keyhaul.agents.gnmi.tls import server_credentials
from keyhaul.transport.tls import TlsFiles
server_credentials(TlsFiles(Path("{files.certificate}"), Path("{files.key}"), Path("{files.trust}")), print)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "gRPC was imported before keyhaul.agents.gnmi" in done.stderr
