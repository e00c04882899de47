"""A page in Chromium without a window, driven by its DevTools protocol; where there is none, tests are skipped."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

SECONDS = 120
"""What the browser may take to start, and for each answer, on a busy machine."""


class Browser:
    """One tab; what its page says on the console or asks of the network is kept."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._number = 0
        self._session = ""
        self.said: list[str] = []
        self.asked: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The protocol's answer to a command; events that come meanwhile are taken."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(command | ({"sessionId": self._session} if self._session else {})))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._take(message)

    def _take(self, event: dict[str, Any]) -> None:
        name, told = event.get("method"), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded = True
        elif name == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.said.append(json.dumps(told["exceptionDetails"]))
        elif name == "Log.entryAdded":
            self.said.append(told["entry"]["text"])

    def open(self, address: str, *, width: int = 1000, height: int = 800, phone: bool = False) -> None:
        """Show a page; returns once it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Page.navigate", url="about:blank")
        while not self._loaded:
            self._take(json.loads(self._socket.recv()))
        self._loaded = False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._take(json.loads(self._socket.recv()))
        self._loaded = False

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one point to another with the left button."""
        self._mouse("mouseMoved", start, buttons=0)
        self._mouse("mousePressed", start)
        for share in (0.3, 0.6, 1.0):
            between = [one + (other - one) * share for one, other in zip(start, end, strict=True)]
            self._mouse("mouseMoved", (between[0], between[1]))
        self._mouse("mouseReleased", end)

    def double_click(self, at: tuple[float, float]) -> None:
        """Twice with the left button."""
        for count in (1, 2):
            self._mouse("mousePressed", at, clickCount=count)
            self._mouse("mouseReleased", at, clickCount=count)

    def _mouse(self, kind: str, at: tuple[float, float], **more: Any) -> None:
        how = {"button": "left", "buttons": 1, "clickCount": 1} | more
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **how)

    def swipe(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one point to another with a finger."""
        self._touch("touchStart", [start])
        for share in (0.1, 0.3, 0.6, 1.0):
            between = [one + (other - one) * share for one, other in zip(start, end, strict=True)]
            self._touch("touchMove", [(between[0], between[1])])
        self._touch("touchEnd", [])

    def _touch(self, kind: str, points: list[tuple[float, float]]) -> None:
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points])

    def press(self, key: str, text: str = "") -> None:
        """A key of the keyboard."""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16_000), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in an empty folder; skips the test where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
    process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        found = next((re.search(r"ws://\S+", line) for line in process.stderr if "DevTools listening" in line), None)
        assert found is not None, "the browser did not start"
        socket = websocket.create_connection(found[0], timeout=SECONDS, suppress_origin=True)
        yield Browser(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(SECONDS)
