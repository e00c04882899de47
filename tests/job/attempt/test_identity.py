"""A run goes on with the data and the model that it began with, or says what changed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.forked import TERM, TEXTS, attempt, complete, outcome, run_folder, slow_uploads, toy_spec
from support.local_runs import manifest, run_here

from lmft_api.spec import LMFineTuneSpec
from lmft_job.attempt.identity import RunIdentity, _changes

BEGAN = RunIdentity("toy", "a" * 64, "fingerprint", "commit", "software")


@pytest.mark.parametrize(
    ("ours", "fields"),
    [
        (BEGAN, []),
        (replace(BEGAN, data="another"), ["spec.dataset"]),
        (replace(BEGAN, model="another"), ["spec.model.name"]),
        (replace(BEGAN, data="another", model="another"), ["spec.dataset", "spec.model.name"]),
        (replace(BEGAN, model=None), []),
        (replace(BEGAN, data="another", software="newer"), []),
    ],
)
def test_what_changed_since_a_run_began_is_named(ours: RunIdentity, fields: list[str]) -> None:
    assert [problem.split(":")[0] for problem in _changes(BEGAN, ours, in_pod=True)] == fields


def test_a_note_of_an_earlier_version_asks_for_nothing() -> None:
    assert _changes(RunIdentity("toy", "a" * 64), BEGAN, in_pod=True) == []


def interrupted(home: Path, spec: dict[str, Any], **options: Any) -> None:
    """A first attempt that was stopped in training."""
    slow = slow_uploads(0.02)
    patch = options.pop("patch", lambda teller: None)
    child = attempt(home, spec, patch=lambda teller: (slow(teller), patch(teller)), **options)
    child.until("step 8 ")
    child.signal(TERM)
    assert child.wait() == 75


def test_files_that_were_changed_since_the_run_began_are_refused(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    interrupted(tmp_path, spec)
    data = tmp_path / "texts.jsonl"
    before = data.read_text()
    data.write_text(before.replace("river", "brook"))
    refused = attempt(tmp_path, spec, 2)
    assert refused.wait() == 2
    assert refused.result["reason"] == "InvalidSpec"
    assert "spec.dataset: the data changed since the run began" in refused.result["message"]
    assert "--overwrite" not in refused.result["message"]
    # and once they are as they were, it goes on
    data.write_text(before)
    assert complete(tmp_path, spec, 3).said("resumed from step")


def test_on_a_laptop_the_run_may_be_begun_anew_with_other_data(tmp_path: Path) -> None:
    path = manifest(tmp_path)

    def stop_when_trained() -> None:
        import lmft_job.recipe

        def train(*_: Any) -> None:
            raise RuntimeError("stopped here")

        lmft_job.recipe.train = train

    assert run_here(tmp_path, path, stop_when_trained).returncode == 1
    data = tmp_path / "texts.jsonl"
    data.write_text(data.read_text().replace("river", "brook"))
    refused = run_here(tmp_path, path)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert run_here(tmp_path, path, overwrite=True).returncode == 0


def branch(commit: str, texts: list[str]) -> Any:
    """A patch: a data set of the hub, at a commit."""

    def patch(teller: Any) -> None:
        from lmft_job.data import prepared
        from lmft_job.data.sources.source import SourceRows

        class Branch:
            identity, title, noun, sliced = f"hub:team/texts:None:{commit}", "team/texts", "rows", False

            def rows(self, *_: Any) -> SourceRows:
                return SourceRows(iter([[{"text": text} for text in texts]]))

        prepared.open_source = lambda *_, **options: Branch()

    return patch


def test_a_branch_of_the_hub_that_moved_on_changes_nothing_in_a_run_that_has_begun(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    for field in ("files", "format"):
        del spec["dataset"][field]
    spec["dataset"]["name"] = "team/texts"
    complete(tmp_path, spec, name="calm", patch=branch("first", TEXTS))
    # given an attempt that was stopped, and a commit that came meanwhile
    interrupted(tmp_path, spec, patch=branch("first", TEXTS))
    moved = branch("second", [text.upper() for text in TEXTS])
    # when the next one begins on a machine that has nothing prepared
    (tmp_path / "cache").rename(tmp_path / "gone")
    complete(tmp_path, spec, 2, patch=moved)
    # then it ends as if the branch had stood still
    assert outcome(tmp_path) == outcome(tmp_path, "calm")
    # and without the prepared data it says that it cannot
    (tmp_path / "cache").rename(tmp_path / "gone too")
    (run_folder(tmp_path) / "report.json").unlink()
    for manifest_file in (tmp_path / "out" / "team" / "datasets").glob("*/MANIFEST.json"):
        manifest_file.unlink()
    refused = attempt(tmp_path, spec, 3, patch=moved)
    assert refused.wait() == 2
    assert "spec.dataset.revision" in refused.result["message"]


def test_a_run_that_a_release_of_one_device_began_resumes_although_it_hashed_the_number_of_gpus(tmp_path: Path) -> None:
    # given a run on one device whose claim holds the hash of such a release, with all of resources in it
    spec = toy_spec(tmp_path, resources={"gpusPerNode": 0, "nodes": 1})
    interrupted(tmp_path, spec)
    file = run_folder(tmp_path) / "run.json"
    note = json.loads(file.read_text())
    body = json.dumps(LMFineTuneSpec.parse(spec).to_json(), sort_keys=True, separators=(",", ":"))
    earlier = hashlib.sha256(body.encode()).hexdigest()
    assert earlier != note["specHash"]
    file.write_text(json.dumps(note | {"specHash": earlier}))
    # when this release runs its next attempt, then it is the same run, and the claim is of this release
    assert complete(tmp_path, spec, 2).said("resumed from step")
    assert json.loads(file.read_text())["specHash"] == note["specHash"]


def test_the_commit_of_a_model_is_noted_with_the_data(tmp_path: Path) -> None:
    complete(tmp_path, toy_spec(tmp_path))
    note = json.loads((run_folder(tmp_path) / "run.json").read_text())
    report = json.loads((run_folder(tmp_path) / "report.json").read_text())
    assert note["data"] == report["provenance"]["datasetFingerprint"]
    assert note["model"] is None
    assert note["specHash"] == report["provenance"]["specHash"]
