"""A run that went on with fewer nodes takes the wanted number again: when it looks, and what becomes of the attempt."""

from typing import Any

import pytest
from support.several_nodes import several

from lmft_api.manifest.validation import parse_spec
from lmft_api.reasons import Reason
from lmft_api.status.fields import CheckpointStatus
from lmft_api.text.times import timestamp
from lmft_api.wire.result import Result, encode
from lmft_operator.decide import elastic
from lmft_operator.jobs import manifest
from lmft_operator.settings import parse
from lmft_operator.status.change import change

STOPPED = Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM after step 9.")
FULL = "0/4 nodes are available: 4 Insufficient cpu."


def saved(world: Any, ago: float = 10.0) -> None:
    found = CheckpointStatus(step=7, uri="s3://models/team-a/eli5/c", time=timestamp(world.now - ago))
    world.status = change(world.status, checkpoint=found)


def asked(world: Any) -> int | None:
    spec = manifest.with_defaults(parse_spec(world.spec), world.settings)
    found = elastic.asks(world.observed(), spec, world.settings)
    return None if found is None else found[0]


@pytest.fixture(params=[1, 3])
def squeezed(request: pytest.FixtureRequest, World: Any) -> Any:
    """A run that wants 4 nodes and goes on with fewer, in its third attempt."""
    nodes = request.param
    world = several(World, elastic={"waitSeconds": 60})
    for index in range(4):
        has = index < nodes
        world.pod(
            2,
            index,
            unschedulable="" if has else FULL,
            unschedulable_since=None if has else world.now,
            node=f"n{index}" if has else "",
        )
    world.later(60)
    world.pods = {name: pod for name, pod in world.pods.items() if pod.attempt != 2}
    world.step()
    for index in range(nodes):
        world.pod(3, index, phase="Running", started=world.now, node=f"n{index}")
    world.step()
    assert (world.created[-1].attempt, world.created[-1].nodes) == (3, nodes)
    world.placed = nodes
    return world


def test_it_looks_at_a_checkpoint_half_an_hour_after_the_last_try(squeezed: Any) -> None:
    assert asked(squeezed) is None
    saved(squeezed)
    assert asked(squeezed) is None

    squeezed.later(1799)
    saved(squeezed, ago=0)
    assert asked(squeezed) is None
    squeezed.later(1)
    assert asked(squeezed) is None, "that checkpoint was saved too early"

    saved(squeezed, ago=0)
    assert asked(squeezed) == 4 - squeezed.placed
    squeezed.later(121)
    assert asked(squeezed) is None, "the next checkpoint is waited for"


def test_the_platform_sets_how_long_it_trains_on_before(squeezed: Any) -> None:
    squeezed.settings = parse("retries: {growSeconds: 300}")
    squeezed.later(299)
    saved(squeezed, ago=0)
    assert asked(squeezed) is None
    squeezed.later(1)
    saved(squeezed, ago=0)
    assert asked(squeezed) == 4 - squeezed.placed


@pytest.mark.parametrize("room", [None, 0, "one too few"])
def test_without_room_for_all_that_miss_it_stays_as_it_is(squeezed: Any, room: Any) -> None:
    squeezed.later(1900)
    saved(squeezed)
    squeezed.room = 4 - squeezed.placed - 1 if room == "one too few" else room
    squeezed.step()

    assert (squeezed.reason, len(squeezed.created)) == ("Training", 3)
    assert squeezed.created[-1].name in squeezed.jobs


def test_with_room_it_is_stopped_and_takes_the_wanted_number(squeezed: Any) -> None:
    squeezed.later(1900)
    saved(squeezed)
    squeezed.room = 4 - squeezed.placed
    squeezed.step()

    assert "There is room for 4 nodes again" in squeezed.message
    assert squeezed.created[-1].name not in squeezed.jobs
    squeezed.room = None
    squeezed.step()
    for index in range(squeezed.placed):
        words = encode(STOPPED).decode()
        squeezed.pod(3, index, phase="Failed", exit_code=75, finished=squeezed.now, log_tail=words)
    squeezed.step()
    squeezed.step()

    assert (squeezed.created[-1].attempt, squeezed.created[-1].nodes) == (4, 4)
    third = squeezed.status.attempts[2]
    assert (third.reason, third.message) == (
        "Interrupted",
        "There is room for 4 nodes again; the next attempt takes them.",
    )
    assert squeezed.status.failures is None
    for index in range(4):
        squeezed.pod(4, index, phase="Running", started=squeezed.now, node=f"n{index}")
    squeezed.later(3600)
    saved(squeezed)
    assert asked(squeezed) is None, "it has all that it wants"


@pytest.mark.parametrize("changed", [{"suspend": True}, {"resources": {"nodes": 4}}, {"resources": {"nodes": 1}}])
def test_what_was_changed_meanwhile_wins(squeezed: Any, changed: dict[str, Any]) -> None:
    squeezed.later(1900)
    saved(squeezed)
    squeezed.spec |= changed
    assert asked(squeezed) is None
