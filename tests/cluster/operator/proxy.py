"""Stands between an operator and its API server, and can make watches silent without closing them."""

import asyncio
import ssl
import threading
from pathlib import Path
from types import TracebackType

import yaml
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from cluster.ports import free_port

HOPS = {"host", "connection", "transfer-encoding", "content-length", "content-encoding"}


class Proxy:
    """Forwards everything as an administrator; between ``mute()`` and ``unmute()`` no watch says anything more.

    Args:
        server: address of the API server.
        tls: trusts it, and proves the administrator.
    """

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self._server, self._tls = server, tls
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()
        self.port = free_port()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }  # fmt: skip
        file = folder / "proxy.yaml"
        file.write_text(yaml.safe_dump(config))
        return file

    def mute(self) -> None:
        """From now on watches are open and silent."""
        self._loop.call_soon_threadsafe(self._speaks.clear)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._speaks, self._over = asyncio.Event(), asyncio.Event()
        self._speaks.set()
        connector = TCPConnector(limit=0, ssl=self._tls)
        session = ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False)

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOPS}
            headers["Accept-Encoding"] = "identity"
            async with session.request(
                request.method, self._server + request.path_qs, data=await request.read() or None, headers=headers
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOPS}
                response = web.StreamResponse(status=answer.status, headers=kept)
                try:
                    await response.prepare(request)
                    async for part in answer.content.iter_any():
                        if request.query.get("watch"):
                            await self._speaks.wait()
                        await response.write(part)
                    await response.write_eof()
                except ConnectionError:
                    return response  # the operator has hung up
                return response

        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()

        self._ready.set()
        await self._over.wait()
        await runner.cleanup()
        await session.close()
