"""What is in storage may be of a neighbouring release: an older one's files are read whole, unknown keys of a newer one
are passed over, and a format that only a newer one knows is left to its image."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import release
from support.pods import Pod
from support.release import Release

from lmft_api.manifest.validation import parse_spec
from lmft_api.reasons import Reason
from lmft_api.spec.resolved import resolve
from lmft_api.wire.layout import ADJUSTMENT_KEY, BEFORE, MANIFEST, PREPARED, REPORT, RUN_MARKER, STAGED_DATA, STATE_FILE
from lmft_job.attempt import journal
from lmft_job.attempt.identity import read_claim
from lmft_job.attempt.result import stored_report
from lmft_job.checkpoints import newest_verified
from lmft_job.data.prepared import reopen
from lmft_job.errors import NewerReleaseError
from lmft_job.stages.baseline import Before
from lmft_job.stages.inputs import staged_fingerprint
from lmft_job.storage import open_store
from lmft_job.storage.folders import read_manifest
from lmft_job.storage.notes import read_note
from lmft_job.training.batch import Adjustment, Batch
from lmft_job.training.history import TrainingHistory

RELEASES = pytest.mark.parametrize("left", release.RELEASES, ids=[one.name for one in release.RELEASES])
FREE = {"files", "labels", "peakMemory", "timings", "versions"}
"""Keys whose values have keys that somebody chose."""
ANYTHING = {"settings"}
"""Keys whose values are kept as they are."""


class Reader:
    """A format: where its file lies, and how it is read. What was read comes back as it would be written."""

    def __init__(self, pattern: str, read: Callable[[Path], Any], of: str = "storage") -> None:
        self.pattern, self.read, self.of = pattern, read, of

    def copy(self, left: Release, home: Path) -> Path:
        """A copy of the folder that the file is in; returns the file."""
        [found] = sorted(getattr(left, self.of).rglob(self.pattern))[-1:]
        shutil.copytree(found.parent, home / "read")
        return home / "read" / found.name


def store(file: Path) -> Any:
    return open_store(f"file://{file.parent}")


def read_step(file: Path) -> dict[str, int]:
    (file.parent / "attempts").mkdir()
    shutil.copy(file, file.parent / "attempts")
    [one] = [one for one in journal.begun(store(file)) if one.key.endswith(file.name)]
    [(number, step)] = journal.known_steps(store(file), [one]).items()
    return {"attempt": number, "step": step, "before": list(journal.place(store(file), number, one.pod, []).before)}


def read_adjustment(file: Path) -> dict[str, Any]:
    found = Adjustment.load(store(file), Batch(64))
    return {"rows": found.batch.rows, "accumulation": found.batch.accumulation, "notes": list(found.notes)}


def read_before(file: Path) -> dict[str, Any]:
    found = read_note(store(file), BEFORE, Before.from_json)
    return {"figures": asdict(found.figures), "answers": list(found.answers)}


def read_state(file: Path) -> dict[str, Any]:
    found = TrainingHistory.load(file.parent)
    return {
        "tokens": found.tokens,
        "seconds": found.seconds,
        "evaluations": [asdict(one) for one in found.evaluations],
        "resumes": [one.model_dump() for one in found.resumes],
    }


def read_prepared(file: Path) -> dict[str, Any]:
    folder = file.parent.parent / "cache" / "prepared" / "f1"
    shutil.copytree(file.parent, folder, dirs_exist_ok=True)
    settings = resolve(parse_spec(release.FIRST.manifest("run")["spec"]))
    found = reopen("f1", settings, None, store=None, cache=folder.parent.parent)
    return {"figures": found.figures.model_dump(mode="json"), "noun": found.noun}


READERS = {
    "run.json": Reader(RUN_MARKER, lambda file: read_claim(store(file)).to_json()),
    "attempts": Reader("attempt-0003*.json", read_step),
    "adjustment.json": Reader(ADJUSTMENT_KEY, read_adjustment),
    "before.json": Reader(BEFORE, read_before),
    "lmft_state.json": Reader(STATE_FILE, read_state),
    "MANIFEST.json": Reader(MANIFEST, lambda file: read_manifest(store(file), "").model_dump()),
    "prepared.json": Reader(PREPARED, read_prepared),
    "staged/data.json": Reader(
        Path(STAGED_DATA).name,
        lambda file: {"fingerprint": staged_fingerprint(open_store(f"file://{renamed(file, 'staged')}"))},
    ),
    "report.json": Reader(REPORT, lambda file: json.loads(stored_report(store(file)).to_json()), of="end"),
}


def renamed(file: Path, folder: str) -> Path:
    """The folder above one of that name with the file in it."""
    shutil.copytree(file.parent, file.parent.parent / "above" / folder, dirs_exist_ok=True)
    return file.parent.parent / "above"


@RELEASES
@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_release_is_read_whole_and_its_unknown_keys_are_passed_over(
    left: Release, name: str, tmp_path: Path
) -> None:
    # given a file as the release wrote it
    reader = READERS[name]
    (tmp_path / "plain").mkdir()
    file = reader.copy(left, tmp_path / "plain")
    written = json.loads(file.read_text())
    # then all of it is read
    read = reader.read(file)
    assert contains(read, written)
    # and the same, when a newer release has added to each of its objects
    (tmp_path / "newer").mkdir()
    newer = reader.copy(left, tmp_path / "newer")
    newer.write_text(json.dumps(with_novelties(written)))
    assert reader.read(newer) == read


@pytest.mark.parametrize("name", [name for name in READERS if name != "prepared.json"])  # that is made again
def test_a_format_that_only_a_newer_release_knows_is_left_to_its_image(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    file = reader.copy(release.RELEASES[-1], tmp_path)
    file.write_text('{"format": 99}')
    with pytest.raises(NewerReleaseError, match=r"has format 99 .* Run it with the image of the newer release") as told:
        reader.read(file)
    assert (told.value.exit_code, told.value.reason) == (75, Reason.INTERRUPTED)


def test_a_newer_checkpoint_is_neither_passed_over_nor_removed(tmp_path: Path) -> None:
    # given two checkpoints, the newer one in a format of a newer release
    for step in (5, 10):
        folder = tmp_path / f"checkpoints/attempt-0001/step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text('{"format": 99}' if step == 10 else '{"files": {}}')
    # then the run does not go back to the older one
    with pytest.raises(NewerReleaseError):
        newest_verified(open_store(f"file://{tmp_path}"), tmp_path / "fetched", print)
    assert (tmp_path / "checkpoints/attempt-0001/step-00000010" / MANIFEST).exists()


def test_a_run_file_that_only_a_newer_image_can_follow_is_no_failure_of_the_run(tmp_path: Path) -> None:
    pod = Pod(tmp_path, {"format": 99})
    code, result = pod.end()
    assert (code, result.reason) == (75, Reason.INTERRUPTED)
    assert "the run file has format 99" in result.message
    assert "spec.podTemplate.image, or job.image of the chart" in result.message
    assert result.message in pod.log


def test_an_unknown_key_of_the_spec_names_the_release_that_does_not_know_it(tmp_path: Path) -> None:
    body = json.loads(release.RELEASES[-1].run_file("run", 1))
    body["spec"]["training"]["novel"] = 1
    code, result = Pod(tmp_path, body).end()
    assert (code, result.reason) == (2, Reason.INVALID_SPEC)
    assert "spec.training.novel: release 0.1.0, of which this job image is, does not know it" in result.message


def with_novelties(value: Any, free: bool = False) -> Any:
    """The JSON value with an unknown key in each object whose keys are ours."""
    if isinstance(value, list):
        return [with_novelties(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    inside = {key: entry if key in ANYTHING else with_novelties(entry, key in FREE) for key, entry in value.items()}
    return inside if free else inside | {"novel": {"a": [1]}}


def contains(whole: Any, part: Any) -> bool:
    """Whether all of one JSON value is in another; what is new may stand beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(contains(whole.get(key), value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)
