"""Heartbeats over real connections: who is missed when, and strangers that come to nothing."""

import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.launched import free_ports

from lmft_api.reasons import Reason
from lmft_job.errors import PeersError
from lmft_job.pod import heartbeat
from lmft_job.pod.heartbeat import FirstPod, OtherPod
from lmft_job.pod.messages import Beat, Bye, Cause, Hello, Message, Stop, Welcome, encode
from lmft_job.pod.plan import PodPlan


def plans(nodes: int = 3, **more: float) -> list[PodPlan]:
    port = free_ports()
    first = PodPlan(nodes, 0, 1, "127.0.0.1", port, "uid-1", 2, "toy-0", "node-0", rendezvous=more.get("seconds", 60))
    return [replace(first, index=index, pod=f"toy-{index}", node=f"node-{index}") for index in range(nodes)]


def heard(peers: FirstPod | OtherPod, wanted: Callable[[Message], bool] = lambda message: True) -> Message:
    """The next message that is wanted."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message = peers.heard()
        if message is not None and wanted(message):
            return message
        time.sleep(0.01)
    raise AssertionError("nothing was heard")


def is_cause(message: Message) -> bool:
    return isinstance(message, Cause)


def stranger(plan: PodPlan, *messages: Message) -> socket.socket:
    """A connection by hand."""
    connection = socket.create_connection(("127.0.0.1", plan.heartbeats), timeout=30)
    connection.sendall(b"".join(map(encode, messages)))
    return connection


def turned_away(connection: socket.socket) -> bool:
    """Whether its connection was ended without a word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_what_one_pod_says_all_others_hear() -> None:
    first, *others = plans()
    cause = Cause(1, "rank 1 was killed", Reason.INTERNAL_ERROR, 137, at_once=True)
    with FirstPod(first) as zero, OtherPod(others[0]) as one, OtherPod(others[1]) as two:
        assert heard(one) == heard(two) == Welcome()
        one.tell(Stop(1))
        assert heard(zero) == heard(two) == Stop(1)
        one.tell(cause)
        assert heard(zero) == heard(two) == cause
        zero.tell(Bye(0))
        assert heard(one) == heard(two) == Bye(0)


def test_a_pod_that_takes_its_leave_is_not_lost_and_one_that_does_not_is_within_three_seconds() -> None:
    first, second, third = plans()
    with FirstPod(first) as zero:
        with OtherPod(second) as one:
            heard(one)
            one.tell(Bye(75))
        gone = stranger(third, Hello("uid-1", 2, 2, "toy-2", "node-2"))
        assert gone.recv(100) == encode(Welcome())
        began = time.monotonic()
        gone.close()
        cause = heard(zero)
    assert time.monotonic() - began < 3
    assert isinstance(cause, Cause)
    assert cause.words == "pod 2 of the attempt (pod toy-2, node node-2) is gone: its connection ended"
    assert (cause.reason, cause.code, cause.at_once) == (Reason.PEERS_MISSING, 8, True)


def test_silence_is_a_loss_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 2.0)
    first, second = plans(2)
    with FirstPod(first) as zero:
        with stranger(second, Hello("uid-1", 2, 1, "toy-1", "")):
            lost = heard(zero, is_cause)
    assert isinstance(lost, Cause)
    assert "nothing was heard of it for 2 seconds" in lost.words
    with (
        socket.create_server(("127.0.0.1", second.heartbeats)) as mute,
        socket.create_server(("127.0.0.1", second.probe)),
    ):
        with OtherPod(second) as one:
            mute.accept()[0].close()  # it looks first whether the port is open
            connection, _ = mute.accept()
            connection.sendall(encode(Welcome()) + encode(Beat()))
            lost = heard(one, is_cause)
            connection.close()
    assert isinstance(lost, Cause)
    assert lost.words == "pod 0 of the attempt is gone: nothing was heard of it for 2 seconds"


@pytest.mark.parametrize(
    "hello",
    [Hello("uid-2", 2, 1), Hello("uid-1", 1, 1), Hello("uid-1", 2, 0), Hello("uid-1", 2, 3), Hello("uid-1", 2, -1),
     Beat(), Cause(1, "x", "Hung", 7), Stop(1)],
)  # fmt: skip
def test_a_stranger_is_turned_away_and_nothing_is_heard_of_it(hello: Message) -> None:
    first = plans()[0]
    with FirstPod(first) as zero, stranger(first, hello, Stop(1)) as connection:
        assert turned_away(connection)
        assert zero.heard() is None


def test_nobody_takes_a_place_twice_or_speaks_for_another() -> None:
    first, second, _ = plans()
    with FirstPod(first) as zero, OtherPod(second) as one:
        heard(one)
        with stranger(second, Hello("uid-1", 2, 1), Stop(1)) as connection:
            assert turned_away(connection)
        with stranger(second, Hello("uid-1", 2, 2), Stop(1), Stop(2)):
            assert heard(zero) == Stop(2)


def test_hostile_bytes_and_many_connections_cost_the_attempt_nothing() -> None:
    first, second = plans(2)
    random_ = random.Random(5)
    with FirstPod(first) as zero, OtherPod(second) as one:
        heard(one)
        crowd = [stranger(first) for _ in range(200)]
        for connection in crowd[::3]:
            connection.close()
        for _ in range(100):
            with stranger(first) as connection:
                try:
                    connection.sendall(random_.randbytes(random_.randint(1, 20_000)) + b"\n")
                except OSError:
                    continue
        one.tell(Stop(1))
        assert heard(zero) == Stop(1)
        for connection in crowd:
            connection.close()


def test_a_policy_that_lets_only_the_services_ports_through_is_found_before_torch_hangs() -> None:
    second = plans(2, seconds=2.0)[1]
    # given a first pod whose other ports refuse
    with socket.create_server(("127.0.0.1", second.heartbeats)), OtherPod(second) as one:
        cause = heard(one, is_cause)
    assert isinstance(cause, Cause)
    assert cause.reason == Reason.NETWORK_UNREACHABLE
    assert f"port {second.heartbeats} is open, {second.probe} is not" in cause.words


def test_a_port_that_is_taken_is_said() -> None:
    first = plans()[0]
    with socket.create_server(("", first.heartbeats)), pytest.raises(PeersError, match="port: the first pod cannot"):
        FirstPod(first)
