"""Heartbeats between the first processes of an attempt's pods, over connections of their own.

Each pod connects to the first one. A pod whose process ends is noticed at once, by its connection; one whose node falls
silent, after seconds. torch's own connections say neither which rank is lost, nor anything before their time-out.
"""

import queue
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from lmft_api.reasons import ExitCode, Reason
from lmft_api.text.wording import first_line
from lmft_job.distributed.reach import Trouble, UnreachableError, connect
from lmft_job.errors import PeersError
from lmft_job.pod.messages import Beat, Bye, Cause, Hello, Message, NotUnderstoodError, Reader, Stop, Welcome, encode
from lmft_job.pod.plan import PodPlan
from lmft_job.pod.verdict import missing, where_of

BEAT_SECONDS = 0.5
SILENCE_SECONDS = 6.0
"""A process that shares its CPUs with ranks may be late; a lost node is found out within ten seconds all the same."""
HELLO_SECONDS = 5.0
_TICK_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 1.0
_STRANGERS = 32
"""Connections that have not said who they are, beyond one a pod; one more replaces the oldest."""


class Peers(Protocol):
    """The other pods of the attempt."""

    def tell(self, message: Message) -> None:
        """Tell all others."""

    def heard(self) -> Message | None:
        """What came since, one by one; losses of pods are causes."""


class _Link:
    """One connection, and what is known of its other end."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        connection.setblocking(False)
        self.socket, self.reader = connection, Reader()
        self.out = bytearray()
        self.since = self.last = now
        self.hello: Hello | None = None
        self.said_end = False

    def read(self, now: float) -> list[Message]:
        """What came; raises OSError or NotUnderstoodError where the connection is of no more use."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError("its connection ended")
        self.last = now
        return self.reader.feed(data)

    def send(self) -> None:
        """Send what is waiting, as far as it goes; raises OSError."""
        if self.out:
            with suppress(BlockingIOError):
                del self.out[: self.socket.send(self.out)]

    def close(self) -> None:
        self.socket.close()


class _Post(ABC):
    """A thread that owns the connections; the rest of the process leaves and takes messages."""

    def __init__(self, plan: PodPlan, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan, self._clock = plan, clock
        self._in: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._out: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._began = clock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything told is sent before the connections end, within a bounded time."""
        self._closing.set()
        self._thread.join(2 * _CLOSE_SECONDS)

    def tell(self, message: Message) -> None:
        self._out.put(message)

    def heard(self) -> Message | None:
        try:
            return self._in.get_nowait()
        except queue.Empty:
            return None

    @abstractmethod
    def _run(self) -> None:
        """Send and take messages until the process leaves."""

    def _told(self) -> list[Message]:
        told = []
        with suppress(queue.Empty):
            while True:
                told.append(self._out.get_nowait())
        return told


class FirstPod(_Post):
    """Hears all other pods, and passes on what one of them says.

    Args:
        plan: of the first pod.
        clock: returns seconds.
    """

    def __init__(self, plan: PodPlan, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(plan, clock)
        self._links: list[_Link] = []
        self._present: dict[int, Hello] = {}
        self._waited = False
        self._listener = _listen(plan.heartbeats)
        try:
            self._probe = _listen(plan.probe)
        except PeersError:
            self._listener.close()
            raise

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._probe:
            for listener in (self._listener, self._probe):
                selector.register(listener, selectors.EVENT_READ)
            beaten = self._clock()
            while not self._closing.is_set():
                for key, _ in selector.select(_TICK_SECONDS):
                    if key.fileobj is self._probe:
                        with suppress(OSError):
                            self._probe.accept()[0].close()
                    elif key.data is None:
                        self._accept(selector)
                    elif key.data in self._links:
                        self._read(key.data, selector)
                now = self._clock()
                for message in self._told():
                    self._pass_on(message, None)
                if now - beaten >= BEAT_SECONDS:
                    beaten = now
                    self._pass_on(Beat(), None)
                self._look(now, selector)
            for message in self._told():
                self._pass_on(message, None)
            _finish([link for link in self._links if link.hello])

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again, or there are too many files open
        strangers = [link for link in self._links if link.hello is None]
        if len(strangers) >= _STRANGERS + self.plan.nodes:
            self._drop(strangers[0], selector)
        link = _Link(connection, self._clock())
        self._links.append(link)
        selector.register(connection, selectors.EVENT_READ, link)

    def _read(self, link: _Link, selector: selectors.BaseSelector) -> None:
        try:
            for message in link.read(self._clock()):
                self._take(link, message)
        except NotUnderstoodError:
            self._lose(link, "what it sends is no heartbeat", selector)
        except OSError:
            self._lose(link, "its connection ended", selector)

    def _take(self, link: _Link, message: Message) -> None:
        if link.hello is None:
            plan = self.plan
            expected = isinstance(message, Hello) and (message.run, message.attempt) == (plan.run, plan.attempt)
            if not isinstance(message, Hello) or not expected or not self._is_new(message.index):
                raise NotUnderstoodError("a stranger")
            link.hello = self._present[message.index] = message
            link.out += encode(Welcome())
        elif isinstance(message, Bye):
            link.said_end = True
        elif isinstance(message, Cause | Stop) and message.index == link.hello.index:
            link.said_end = link.said_end or isinstance(message, Cause)
            self._in.put(message)
            self._pass_on(message, link)

    def _is_new(self, index: int) -> bool:
        return 0 < index < self.plan.nodes and index not in self._present

    def _pass_on(self, message: Message, source: _Link | None) -> None:
        for link in self._links:
            if link.hello is not None and link is not source:
                link.out += encode(message)

    def _look(self, now: float, selector: selectors.BaseSelector) -> None:
        """Send what waits, and look for the silent and the absent."""
        for link in list(self._links):
            try:
                link.send()
            except OSError:
                self._lose(link, "its connection ended", selector)
                continue
            if link.hello is None and now - link.since > HELLO_SECONDS:
                self._drop(link, selector)
            elif link.hello is not None and now - link.last > SILENCE_SECONDS:
                self._lose(link, f"nothing was heard of it for {SILENCE_SECONDS:g} seconds", selector)
        if not self._waited and now - self._began >= self.plan.rendezvous:
            self._waited = True
            if cause := missing(self._present, self.plan):
                self._in.put(cause)

    def _lose(self, link: _Link, how: str, selector: selectors.BaseSelector) -> None:
        self._drop(link, selector)
        if link.hello is None or link.said_end:
            return
        cause = lost(link.hello.index, link.hello.pod, link.hello.node, how)
        self._in.put(cause)
        self._pass_on(cause, link)

    def _drop(self, link: _Link, selector: selectors.BaseSelector) -> None:
        self._links.remove(link)
        with suppress(KeyError, ValueError):
            selector.unregister(link.socket)
        link.close()


class OtherPod(_Post):
    """Connects to the first pod, and stays connected."""

    def _run(self) -> None:
        link = self._join()
        if link is None:
            return
        try:
            self._keep(link)
        except NotUnderstoodError:
            self._lose(link, "what it sends is no heartbeat")
        except OSError:
            self._lose(link, "its connection ended")
        finally:
            link.close()

    def _keep(self, link: _Link) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(link.socket, selectors.EVENT_READ)
            beaten = self._clock()
            while not self._closing.is_set():
                ready = selector.select(_TICK_SECONDS)
                now = self._clock()
                if ready:
                    for message in link.read(now):
                        self._take(link, message)
                elif now - link.last > SILENCE_SECONDS:
                    self._lose(link, f"nothing was heard of it for {SILENCE_SECONDS:g} seconds")
                    return
                if now - beaten >= BEAT_SECONDS:
                    beaten = now
                    link.out += encode(Beat())
                self._leave(link)
                link.send()
            self._leave(link)
            _finish([link])

    def _leave(self, link: _Link) -> None:
        for message in self._told():
            link.out += encode(message)

    def _take(self, link: _Link, message: Message) -> None:
        if isinstance(message, Stop | Cause | Bye):
            link.said_end = link.said_end or isinstance(message, Bye)
            self._in.put(message)

    def _lose(self, link: _Link, how: str) -> None:
        if not link.said_end:
            self._in.put(lost(0, "", "", how))

    def _join(self) -> _Link | None:
        """Say hello until the first pod answers; None once the time is over, or the process ends."""
        trouble = UnreachableError(Trouble.ABSENT, "the first pod does not answer")
        while not self._closing.wait(_RETRY_SECONDS if self._clock() > self._began + _RETRY_SECONDS else 0.05):
            left = self._began + self.plan.rendezvous - self._clock()
            if left <= 0:
                self._in.put(unreached(trouble, self.plan))
                return None
            try:
                self._probe_others()
                return self._greet(_Link(connect(self.plan.address, self.plan.heartbeats), self._clock()))
            except UnreachableError as error:
                trouble = error
            except (OSError, NotUnderstoodError):
                where = f"{self.plan.address}:{self.plan.heartbeats}"
                words = f"port: what answers at {where} is not the first pod of this attempt"
                trouble = UnreachableError(Trouble.PORT, words)
        return None

    def _probe_others(self) -> None:
        """Whether more than the ports of the Service is open; raises UnreachableError.

        Without it a policy that lets only those through would show as a hang, in torch's first collective.
        """
        connect(self.plan.address, self.plan.heartbeats).close()
        try:
            connect(self.plan.address, self.plan.probe).close()
        except UnreachableError as error:
            raise UnreachableError(
                Trouble.POLICY,
                f"the first pod's port {self.plan.heartbeats} is open, {self.plan.probe} is not: {error}",
            ) from error

    def _greet(self, link: _Link) -> _Link:
        plan = self.plan
        link.socket.settimeout(HELLO_SECONDS)
        try:
            link.socket.sendall(encode(Hello(plan.run, plan.attempt, plan.index, plan.pod, plan.node)))
            answer: list[Message] = []
            while not answer:
                data = link.socket.recv(4096)
                if not data:
                    raise ConnectionResetError
                answer = link.reader.feed(data)
            if not isinstance(answer[0], Welcome):
                raise NotUnderstoodError("no welcome")
        except (OSError, NotUnderstoodError):
            link.close()
            raise
        link.last = self._clock()
        link.socket.setblocking(False)
        self._in.put(answer[0])
        for message in answer[1:]:
            self._take(link, message)
        return link


def peers_of(plan: PodPlan) -> FirstPod | OtherPod:
    """This pod's end of the heartbeats."""
    return OtherPod(plan) if plan.index else FirstPod(plan)


def lost(index: int, pod: str, node: str, how: str) -> Cause:
    """The loss of a pod that said nothing of its end."""
    name = f"pod {index} of the attempt" + where_of(pod, node)
    return Cause(index, f"{name} is gone: {how}", Reason.PEERS_MISSING, ExitCode.PEERS, at_once=True)


def unreached(error: UnreachableError, plan: PodPlan) -> Cause:
    """What a pod says that did not reach the first one in time."""
    reason = Reason.PEERS_MISSING if error.trouble == Trouble.ABSENT else Reason.NETWORK_UNREACHABLE
    words = f"{error} (tried for {plan.rendezvous:g} seconds)"
    return Cause(plan.index, words, reason, ExitCode.PEERS, at_once=True)


def _listen(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, backlog=512, dualstack_ipv6=dual)
    except OSError as error:
        words = f"port: the first pod cannot listen on {port} ({first_line(error)})"
        raise PeersError(words, Reason.NETWORK_UNREACHABLE) from error
    listener.setblocking(False)
    return listener


def _finish(links: list[_Link]) -> None:
    """Send the rest, and end the connections such that what was sent still arrives."""
    until = time.monotonic() + _CLOSE_SECONDS
    for link in links:
        with suppress(OSError):
            link.socket.settimeout(max(0.01, until - time.monotonic()))
            link.socket.sendall(link.out)
            link.socket.shutdown(socket.SHUT_WR)
    for link in links:
        # Closing with unread bytes resets a connection, and the other end may lose what it has not read yet.
        with suppress(OSError):
            while time.monotonic() < until and link.socket.recv(65536):
                continue
        link.close()
