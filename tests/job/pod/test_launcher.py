"""A pod of several ranks: started, stopped, killed and started again, with small scripts in the place of ranks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.launched import Attempt, gone

UP = "mark('up')\n"
FOREVER = UP + "while True: time.sleep(0.05)\n"
SAVES = UP + "on_stop(lambda: leave(75, 'Interrupted', f'stopped; saved by {rank}'))\nwhile True: time.sleep(0.05)\n"


def test_a_pod_of_two_ranks_ends_with_the_result_of_the_first(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "leave(0, 'Completed', f'rank {rank} of ' + os.environ['WORLD_SIZE'])")

    code, result = attempt.end()[0]

    assert (code, result.reason, result.message) == (0, "Completed", "rank 0 of 2")


def test_a_stop_of_one_pod_reaches_every_rank_of_all(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, SAVES, nodes=2)
    pids = [attempt.pid(rank) for rank in range(4)]
    attempt.pods[1].until_welcome()

    os.kill(attempt.pods[1].pid, signal.SIGTERM)
    ends = attempt.end()

    assert [(code, result.reason) for code, result in ends.values()] == [(75, "Interrupted")] * 2
    assert ends[0][1].message == "stopped; saved by 0"
    assert all(map(gone, pids))


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_a_killed_rank_ends_every_process_of_every_pod_within_ten_seconds(victim: int, tmp_path: Path) -> None:
    # given ranks that would save on a SIGTERM
    attempt = Attempt(tmp_path, UP + "on_stop(lambda: mark('saving'))\nwhile True: time.sleep(0.05)\n", nodes=2)
    pids = [attempt.pid(rank) for rank in range(4)]
    attempt.pods[1].until_welcome()

    began = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    ends = attempt.end()

    assert time.monotonic() - began < 10
    assert all(map(gone, pids))
    home, other = victim // 2, 1 - victim // 2
    words = f"rank {victim} (pod toy-{home}, node node-{home}) was killed by SIGKILL (exit 137)"
    assert (ends[home][0], ends[home][1].reason) == (137, "InternalError")
    assert (ends[other][0], ends[other][1].reason) == (8, "PeersMissing")
    assert all(words in result.message for _, result in ends.values())
    assert not list(attempt.marks.glob("saving-*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_pod_that_is_killed_whole_ends_the_others(victim: int, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, FOREVER, nodes=2, per_node=1)
    pids = [attempt.pid(rank) for rank in range(2)]
    attempt.pods[1].until_welcome()

    began = time.monotonic()
    os.kill(attempt.pods[victim].pid, signal.SIGKILL)
    code, result = attempt.pods[1 - victim].end()

    assert time.monotonic() - began < 10
    assert (code, result.reason) == (8, "PeersMissing")
    assert f"pod {victim} of the attempt" in result.message
    assert "is gone: its connection ended" in result.message
    os.waitpid(attempt.pods[victim].pid, 0)
    while not all(map(gone, pids)):  # the kernel ends the ranks of the killed one
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def test_the_cause_is_said_not_its_echo(tmp_path: Path) -> None:
    # given a rank that fails by a data set of its own, and the others' connections that break before it has ended
    script = UP + (
        "if rank == 2:\n"
        "    wait_for('echo-0'); time.sleep(0.3); leave(2, 'DatasetInvalid', 'spec.dataset.files: line 3')\n"
        "mark('echo')\n"
        "leave(8, 'PeersMissing', 'the connection to another rank was lost')\n"
    )
    ends = Attempt(tmp_path, script, nodes=2).end()

    assert (ends[1][0], ends[1][1].reason) == (2, "DatasetInvalid")
    assert ends[1][1].message == "spec.dataset.files: line 3. Seen by rank 2 (pod toy-1, node node-1)."
    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")
    assert "line 3" in ends[0][1].message


def test_after_a_shortage_one_pod_starts_all_its_ranks_again(tmp_path: Path) -> None:
    script = (
        "again = (Path(os.environ['MARKS']) / f'up-{rank}').exists()\n"
        "if again: leave(0, 'Completed', 'with the smaller batch')\n"
        "mark('up')\n"
        "if rank == 1: wait_for('up-0'); leave(85, 'Interrupted', 'out of accelerator memory: 4 → 2')\n"
        "while True: time.sleep(0.05)\n"
    )
    attempt = Attempt(tmp_path, script)

    code, result = attempt.end()[0]

    assert (code, result.message) == (0, "with the smaller batch")
    assert "All ranks of the pod start again" in attempt.pods[0].log


def test_after_a_shortage_several_pods_end_for_the_next_attempt(tmp_path: Path) -> None:
    short = "leave(85, 'Interrupted', 'out of accelerator memory: 4 → 2', adjustments=['4 → 2'])"
    script = UP + f"if rank == 1: {short}\nwhile True: time.sleep(0.05)\n"

    ends = Attempt(tmp_path, script, nodes=2, per_node=1).end()

    assert (ends[1][0], ends[1][1].reason, ends[1][1].adjustments) == (75, "Interrupted", ["4 → 2"])
    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")


def test_a_rank_that_hangs_is_named_and_the_stacks_of_all_are_in_the_log(tmp_path: Path) -> None:
    script = UP + (
        "def stuck_in_a_collective():\n    while True: time.sleep(0.05)\n"
        "if rank == 3: time.sleep(0.5); leave(7, 'Hung', 'nothing moved while training, at step 3')\n"
        "stuck_in_a_collective()\n"
    )
    attempt = Attempt(tmp_path, script, nodes=2)

    ends = attempt.end()

    assert (ends[1][0], ends[1][1].reason) == (7, "Hung")
    assert ends[1][1].message.endswith("at step 3. Seen by rank 3 (pod toy-1, node node-1).")
    for index, ranks in ((0, (0, 1)), (1, (2,))):
        for rank in ranks:
            log = attempt.pods[index].log
            _, _, stacks = log.partition(f"stacks of rank {rank} (pod toy-{index}, node node-{index})")
            assert "in stuck_in_a_collective" in stacks, log


def test_a_rank_that_does_not_end_on_a_stop_is_killed_within_the_grace_period(tmp_path: Path) -> None:
    attempt = Attempt(
        tmp_path, UP + "on_stop(lambda: None)\nwhile True: time.sleep(0.05)\n", run_file={"graceSeconds": 3}
    )
    attempt.until("up-0", "up-1")

    began = time.monotonic()
    os.kill(attempt.pods[0].pid, signal.SIGTERM)
    code, result = attempt.end()[0]

    assert (code, result.reason) == (75, "Interrupted")
    assert time.monotonic() - began < 10


def test_peers_that_never_come_are_named(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, FOREVER, nodes=3, per_node=1, only=(0, 2), LMFT_RENDEZVOUS_SECONDS="3")

    ends = attempt.end()

    assert (ends[0][0], ends[0][1].reason) == (8, "PeersMissing")
    assert "pod 1 of the attempt has not come within 3 seconds: 1 of 3" in ends[0][1].message
    assert (ends[2][0], ends[2][1].reason) == (8, "PeersMissing")
    assert "pod 1 of the attempt" in ends[2][1].message


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("toy-0.lmft.invalid", "name resolution: toy-0.lmft.invalid does not resolve"),
        ("127.0.0.1", "port: 127.0.0.1 refuses"),
    ],
)
def test_a_first_pod_that_cannot_be_reached_says_what_keeps_it(address: str, words: str, tmp_path: Path) -> None:
    attempt = Attempt(
        tmp_path, FOREVER, nodes=2, per_node=1, only=(1,), LMFT_RENDEZVOUS_SECONDS="2", MASTER_ADDR=address
    )

    code, result = attempt.end()[1]

    assert (code, result.reason) == (8, "NetworkUnreachable")
    assert words in result.message
    assert gone(attempt.pid(1))


def test_a_place_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, FOREVER, nodes=2, per_node=1, only=(1,), JOB_COMPLETION_INDEX="7")

    code, result = attempt.end()[1]

    assert (code, result.reason) == (2, "InvalidSpec")
    assert "JOB_COMPLETION_INDEX: is '7'" in result.message


def test_the_first_process_imports_no_torch() -> None:
    script = "import sys; import lmft_job.pod.launcher; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
