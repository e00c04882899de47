"""What keeps a pod from being reached: its name, its port, or a policy."""

import errno
import socket
from typing import Any

import pytest

from lmft_job.distributed import reach
from lmft_job.distributed.reach import Trouble, UnreachableError, connect


def resolving(known: dict[str, str], missing: OSError | None = None) -> reach.Resolve:
    def resolve(name: str, port: int) -> list[tuple[Any, ...]]:
        if name not in known:
            raise missing or socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return list(socket.getaddrinfo(known[name], port, type=socket.SOCK_STREAM))

    return resolve


def trouble(resolve: reach.Resolve, name: str = "toy-0.lmft", port: int = 1) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        connect(name, port, 0.5, resolve)
    return caught.value


def test_a_service_without_the_name_of_the_first_pod_says_that_it_has_not_begun() -> None:
    found = trouble(resolving({"lmft": "127.0.0.1"}))

    assert found.trouble == Trouble.ABSENT
    assert str(found) == "the first pod has not begun: lmft resolves, toy-0.lmft does not"


def test_a_name_that_does_not_resolve_is_told_from_a_dns_that_does_not_answer() -> None:
    absent = trouble(resolving({}))
    silent = trouble(resolving({}, socket.gaierror(socket.EAI_AGAIN, "Temporary failure")))

    assert absent.trouble == silent.trouble == Trouble.NAME
    assert "look for the Service lmft of the attempt" in str(absent)
    assert "DNS does not answer" in str(silent)
    assert trouble(resolving({}), "toy\udcff-0.lmft").trouble == Trouble.NAME


def test_a_port_that_refuses_is_told_from_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = resolving({"toy-0.lmft": "127.0.0.1"})
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
        connect("toy-0.lmft", free, 5, resolve).close()
    assert trouble(resolve, port=free).trouble == Trouble.PORT

    # given a full queue, as good as a policy that drops packets
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        dropped = trouble(resolve, port=port)
        for connection in waiting:
            connection.close()
    assert dropped.trouble == Trouble.POLICY
    assert "no answer within 0.5 seconds" in str(dropped)
    assert "all TCP ports of each other" in str(dropped)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES])
def test_a_rejected_route_is_a_policy_too(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rejected(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(number, "rejected")

    monkeypatch.setattr("lmft_job.distributed.reach.socket.socket", Rejected)

    found = trouble(resolving({"toy-0.lmft": "127.0.0.1"}))

    assert found.trouble == Trouble.POLICY
    assert "rejected" in str(found)
