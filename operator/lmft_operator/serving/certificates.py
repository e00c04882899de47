"""The operator's serving certificate: waited for, and taken up again when it is renewed."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)
LOOK_SECONDS = 30.0
"""Between two looks for a renewed certificate."""
_WAIT_SECONDS = 5.0


class ServingCertificate:
    """A TLS context that takes up a renewed certificate without a restart."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = b""
        self.reload()

    def reload(self) -> bool:
        """Load the files again if they changed; new connections use them. A half-written pair keeps the old one."""
        content = self._certificate.read_bytes() + self._key.read_bytes()
        if content == self._loaded:
            return False
        self.context.load_cert_chain(self._certificate, self._key)
        self._loaded = content
        return True

    async def follow(self, every_seconds: float, say: Callable[[str], None]) -> None:
        """Look for a renewed certificate for as long as the task lives."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                if self.reload():
                    say("loaded the renewed serving certificate")
            except (OSError, ssl.SSLError) as error:
                say(f"the renewed serving certificate cannot be used, keeping the old one: {error}")


async def serving_certificate(cert_file: str, key_file: str, missed: str) -> ServingCertificate:
    """The certificate of two files, once they can be read; until then the log says what is missed for want of it."""
    said = ""
    while True:
        try:
            return ServingCertificate(Path(cert_file), Path(key_file))
        except OSError as problem:  # ssl.SSLError is one
            if str(problem) != said:
                said = str(problem)
                logger.warning("no %s until the serving certificate can be read: %s", missed, problem)
        await asyncio.sleep(_WAIT_SECONDS)
