"""What lies in a pod beside the data is no data, whatever leads there."""

from pathlib import Path

import pytest

from lmft_job.errors import InvalidError
from lmft_job.models.sources.source import fetch_source


@pytest.mark.parametrize("secret", ["/proc/self/environ", "/etc/lmft/secrets/hub/token", "/run/secrets/x/token"])
def test_a_model_whose_vocabulary_is_a_link_to_a_secret_is_refused(tmp_path: Path, secret: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "vocab.txt").symlink_to(secret)
    with pytest.raises(InvalidError, match=r"spec\.model\.name: .* lies outside of what a manifest may read"):
        fetch_source(f"file://{model}", tmp_path / "fetched", field="spec.model.name")


def test_a_folder_of_secrets_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to("/proc/self")
    with pytest.raises(InvalidError, match="lies outside"):
        fetch_source(f"file://{tmp_path}/model", tmp_path / "fetched", field="spec.model.name")


def test_a_model_whose_files_are_links_into_a_hub_cache_is_fine(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "blob").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blob")
    assert fetch_source(f"file://{snapshot}", tmp_path / "fetched", field="spec.model.name").path == snapshot
