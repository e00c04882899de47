"""The operator's serving certificate: waited for at the start, and reloaded when it is renewed."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)
LOOK_SECONDS = 30.0
"""Seconds between two checks for a renewed certificate."""
_WAIT_SECONDS = 5.0


class ServingCertificate:
    """A TLS context that loads a renewed certificate without a restart."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = b""
        self.reload()

    def reload(self) -> bool:
        """Load the files again if they changed; new connections use them. An incomplete pair keeps the old one."""
        content = self._certificate.read_bytes() + self._key.read_bytes()
        if content == self._loaded:
            return False
        self.context.load_cert_chain(self._certificate, self._key)
        self._loaded = content
        return True

    async def follow(self, every_seconds: float, say: Callable[[str], None]) -> None:
        """Check for a renewed certificate until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                if self.reload():
                    say("loaded the renewed serving certificate")
            except (OSError, ssl.SSLError) as error:
                say(f"the renewed serving certificate cannot be used, keeping the old one: {error}")


async def serving_certificate(cert_file: str, key_file: str, missed: str) -> ServingCertificate:
    """The certificate from two files, once they are readable; until then the log says what does not work without it."""
    said = ""
    while True:
        try:
            return ServingCertificate(Path(cert_file), Path(key_file))
        except OSError as problem:  # includes ssl.SSLError
            if str(problem) != said:
                said = str(problem)
                logger.warning("no %s until the serving certificate can be read: %s", missed, problem)
        await asyncio.sleep(_WAIT_SECONDS)
