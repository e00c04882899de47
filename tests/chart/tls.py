"""A TLS handshake with a certificate of the chart's."""

import ssl
from pathlib import Path


def handshake(folder: Path, host: str) -> str:
    """A TLS handshake in memory; "ok" or the client's complaint."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client_context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(10):
        done = True
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as problem:
                return problem.verify_message
        if done:
            return "ok"
    raise AssertionError("the handshake does not end")
