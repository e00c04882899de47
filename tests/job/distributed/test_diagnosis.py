"""What the record of collectives says of a hang."""

import json
from typing import Any

import pytest

from lmft_job.distributed.diagnosis import collectives, recorded_collectives


def entry(number: int, name: str = "gloo:all_reduce", **more: Any) -> dict[str, Any]:
    """An entry as torch 2.15 writes it."""
    return {
        "collective_seq_id": number, "input_dtypes": ["Float"], "input_sizes": [[4]], "is_p2p": False, "op_id": number,
        "output_dtypes": ["Float"], "output_sizes": [[4]], "p2p_seq_id": 0, "pg_id": 0,
        "process_group": ["0", "default_pg"], "profiling_name": name, "record_id": number - 1, "retired": False,
        "state": "scheduled", "time_created_ns": 1795861924162159328, "time_discovered_completed_ns": 0,
        "time_discovered_started_ns": 0, "timeout_ms": 1800000,
    } | more  # fmt: skip


def dump(*entries: dict[str, Any]) -> bytes:
    state = {"comm_lib_version": "", "nccl_comm_state": {}, "pg_config": {}, "pg_status": {}, "version": "2.10"}
    return json.dumps(state | ({"entries": entries} if entries else {})).encode()


DUMPS = {
    "nothing": (dump(), []),
    "gloo": (
        dump(entry(1, retired=True), entry(2)),
        [
            "gloo:all_reduce 1 of default_pg, sizes 4: ended",
            "gloo:all_reduce 2 of default_pg, sizes 4: scheduled, not ended",
        ],
    ),
    "NCCL": (
        dump(
            entry(6, "nccl:all_reduce", state="completed"),
            entry(7, "nccl:all_reduce", state="completed", retired=True),
            entry(8, "nccl:all_gather", state="started", input_sizes=[[2, 3], [], [5], [6], [7]]),
        ),
        [
            "nccl:all_reduce 7 of default_pg, sizes 4: ended",
            "nccl:all_gather 8 of default_pg, sizes 2×3 1 5 6 …: started, not ended",
        ],
    ),
    "no JSON": (b"\x80\x04", ["the record of collectives is not understood (UnicodeDecodeError)"]),
    "another format": (dump({"name": "x"}), ["the record of collectives is not understood (KeyError)"]),
}


@pytest.mark.parametrize("name", DUMPS)
def test_the_last_collective_that_ended_and_those_that_have_not(name: str) -> None:
    recorded, lines = DUMPS[name]
    assert collectives(recorded) == lines


def test_of_many_the_oldest_are_shown() -> None:
    lines = collectives(dump(*(entry(number) for number in range(1, 100))))
    assert [line.split()[1] for line in lines] == list("12345678")


def test_without_torch_nothing_is_said() -> None:
    assert recorded_collectives({}) == []
