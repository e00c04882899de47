"""SIGTERM in every phase: a quick, clean end with 75, and the next start goes on."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.forked import TERM, attempt, complete, outcome, run_folder, slow_uploads, toy_spec

from lmft_job.process.grace import Grace
from lmft_job.process.signals import Interrupt, StopNow


def hold_up(place: str, seconds: float = 0.02) -> Any:
    """A patch: a function announces itself and then takes its time, in small pieces as the real ones do."""

    def patch(teller: Any) -> None:
        import pkgutil

        owner_name, _, name = place.rpartition(".")
        owner = pkgutil.resolve_name(owner_name)
        original = getattr(owner, name)

        def slow(*args: Any, **options: Any) -> Any:
            teller.tell("phase", place)
            for _ in range(5):
                time.sleep(seconds)
            return original(*args, **options)

        setattr(owner, name, slow)

    return patch


@pytest.mark.parametrize(
    "place",
    [
        "lmft_job.recipe.find_sources",
        "lmft_job.stages.inputs.prepare",
        "lmft_job.stages.ranks.load.make_model",
        "lmft_job.training.loop.answer_prompts",
        "lmft_job.training.loop.evaluate_held_out",
        "lmft_job.training.trainer.build_trainer",
        "lmft_job.training.loop.TrainingLoop.measure",
        "lmft_job.stages.publish.answers_after",
        "lmft_job.stages.publish.save_model",
        "lmft_job.stages.publish.render_page",
    ],
)
def test_a_stop_in_any_phase_exits_75_within_seconds_and_the_next_start_finishes(
    place: str, tmp_path: Path, calm: tuple[Path, dict[str, Any]]
) -> None:
    spec = toy_spec(tmp_path)
    child = attempt(tmp_path, spec, patch=hold_up(place))
    child.until(f"phase {place}")
    asked = time.monotonic()
    child.signal(TERM)
    assert child.wait() == 75, child.log.read_text()[-2000:]
    assert time.monotonic() - asked < 10
    assert child.result["reason"] == "Interrupted"
    assert not (run_folder(tmp_path) / "report.json").exists()
    complete(tmp_path, spec, 2)
    assert outcome(tmp_path) == calm[1]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing disturbed."""
    home = tmp_path_factory.mktemp("calm")
    complete(home, toy_spec(home))
    return home, outcome(home)


def test_a_stop_in_a_step_saves_it_and_the_report_says_where_the_run_went_on(
    tmp_path: Path, calm: tuple[Path, dict[str, Any]]
) -> None:
    spec = toy_spec(tmp_path)
    child = attempt(tmp_path, spec, patch=slow_uploads(0.02))
    child.until("step 8 ")
    child.signal(TERM)
    assert child.wait() == 75
    saved = child.result["checkpoint"]["step"]
    assert saved >= 8
    assert f"checkpoint {saved}" in child.lines
    last = complete(tmp_path, spec, 2)
    counts = last.result["counts"]
    assert counts["resumedFromStep"] == saved
    assert counts["lostSteps"] == 0
    assert outcome(tmp_path) == calm[1]


def test_an_upload_that_storage_never_ends_is_given_up_within_the_grace_period(
    tmp_path: Path, calm: tuple[Path, dict[str, Any]]
) -> None:
    def never_end_after_the_first(teller: Any) -> None:
        from lmft_job.storage.local import FileStore

        original = FileStore.put_if_absent

        def put_if_absent(self: Any, key: str, data: bytes) -> bool:
            if "/step-" in key and "/step-00000005/" not in key:
                teller.tell("stuck")
                time.sleep(600)
            return original(self, key, data)

        FileStore.put_if_absent = put_if_absent  # type: ignore[method-assign]

    # given a run whose second checkpoint never arrives, and which waits for it with the third
    spec = toy_spec(tmp_path)
    child = attempt(tmp_path, spec, patch=never_end_after_the_first, grace_seconds=2)
    child.until("stuck")
    # when it is stopped
    child.signal(TERM)
    # then it ends by itself, says what is kept, and the next start goes on from there
    assert child.wait() == 75
    assert "did not end within the grace period; step 5 is the newest in storage" in child.result["message"]
    assert child.result["checkpoint"]["step"] == 5
    assert complete(tmp_path, spec, 2).result["counts"]["resumedFromStep"] == 5
    assert outcome(tmp_path) == calm[1]


def test_a_signal_that_comes_while_the_process_is_replaced_is_not_lost() -> None:
    # given a process that is replaced by a fresh one, and a signal on the way, which kills or is lost by default
    code = (
        "import os, signal, sys\n"
        "import lmft_job.process.signals as ours\n"
        "execv = os.execv\n"
        "os.execv = lambda *words: (os.kill(os.getpid(), signal.SIGTERM), execv(*words))\n"
        "interrupt = ours.Interrupt()\n"
        "interrupt.install()\n"
        "ours.replace_process(interrupt, 'lmft_job.pod', ['--run-file', '/nowhere', '--termination-log', os.devnull])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60
    )
    assert process.returncode == 75


ENTRIES = {
    "lmft_job.pod": ["--run-file", "/nowhere", "--termination-log", os.devnull],
    "lmft_job.cli": ["run", str(Path(__file__).parents[2] / "examples/quickstart.yaml"), "--output"],
}


@pytest.mark.parametrize("module", ENTRIES)
def test_a_stop_while_modules_are_imported_exits_75(module: str, tmp_path: Path) -> None:
    started = time.monotonic()
    words = [*ENTRIES[module], *([str(tmp_path)] if module == "lmft_job.cli" else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not _handles_term(process.pid) and time.monotonic() - started < 20:
        time.sleep(0.002)
    process.send_signal(TERM)
    assert process.wait(timeout=20) == 75


@pytest.mark.parametrize("module", ENTRIES)
def test_nothing_heavy_is_imported_before_the_handler_stands(module: str) -> None:
    code = (
        "import sys\n"
        "import lmft_job.process.signals as ours\n"
        f"from {module}.__main__ import main\n"
        "def install(interrupt):\n"
        "    print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - known)\n"
        "    sys.exit(3)\n"
        "ours.Interrupt.install = install\n"
        f"sys.argv = [{module!r}, *{ENTRIES[module]!r}]\n"
        "main()\n"
    )
    # What an installation's .pth files bring in is there before any of our code.
    code = "import sys; known = {name.partition('.')[0] for name in sys.modules}\n" + code
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 3, process.stderr
    assert set(process.stdout.split()) == {"lmft_api", "lmft_job", "typing_extensions"}


def _handles_term(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (TERM - 1) & 1)


def test_listeners_hear_of_a_stop_before_and_after_it_was_asked_for() -> None:
    interrupt, heard = Interrupt(), []
    interrupt.on_request(lambda: heard.append("before"))
    with interrupt.deferred():
        interrupt._handle(TERM, None)
        interrupt._handle(TERM, None)
    interrupt.on_request(lambda: heard.append("after"))
    assert heard == ["before", "after"]


@pytest.mark.parametrize(("seconds", "uploads", "everything"), [(120, 105, 115), (30, 15, 25), (2, 1, 1.6)])
def test_a_grace_period_leaves_time_to_say_how_it_ended(seconds: float, uploads: float, everything: float) -> None:
    grace = Grace(seconds)
    assert (grace.for_uploads, grace.for_all) == (uploads, everything)


def test_inside_a_deferral_a_signal_is_only_noted() -> None:
    interrupt = Interrupt()
    with interrupt.deferred():
        interrupt._handle(TERM, None)
        assert interrupt.requested
    with pytest.raises(Exception, match="SIGTERM"):
        interrupt.check()


def test_outside_a_signal_stops_at_once_and_no_broad_except_can_swallow_it() -> None:
    interrupt = Interrupt()
    with pytest.raises(StopNow), contextlib.suppress(Exception):  # what careless libraries do
        interrupt._handle(TERM, None)
