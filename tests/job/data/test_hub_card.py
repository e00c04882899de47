"""A data set's card names files of its own repository, and nothing else is asked for or read."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from attacks.members.data_cards import FOREIGN, HUB
from job.data.test_hub import ask
from support.hub_data_double import hub

from lmft_job.data.sources.hub_card import foreign_places, is_own, places


@pytest.mark.parametrize(
    "place",
    [
        "train.parquet", "data/*.jsonl", "**/train-*", "data/train-[0-9][0-9].csv", "./x.csv", "a..b/c.txt", "data",
        "hf://datasets/team/reviews/train.csv", "hf://datasets/team/reviews@v1/train.csv",
        f"{HUB}/datasets/team/reviews/resolve/main/train.csv", "zip://inner/*.csv::data.zip", "zip://*::data/a.zip",
        f"zip://a.csv::{HUB}/datasets/team/reviews/resolve/main/a.zip",
    ],
)  # fmt: skip
def test_paths_and_addresses_of_the_repository_are_its_own(place: str) -> None:
    assert is_own(place, "team/reviews", HUB)


@pytest.mark.parametrize("place", FOREIGN)
def test_everything_else_is_foreign(place: str) -> None:
    assert not is_own(place, "team/reviews", HUB)


@pytest.mark.parametrize(
    "data_files",
    [
        "X", ["X"], {"train": "X"}, {"train": ["a", "X"]}, [{"split": "train", "path": "X"}],
        [{"split": "train", "path": ["a", "X"]}], [{"path": "X", "split": "a"}, {"split": "b", "path": "c"}],
    ],
)  # fmt: skip
def test_places_are_found_in_every_form(data_files: Any) -> None:
    assert "X" in list(places({"configs": [{"config_name": "a", "data_files": data_files}]}))
    assert foreign_places({"configs": [{"config_name": "a", "data_dir": "/x"}]}, "t/r", HUB) == ["/x"]


def test_a_card_without_files_and_one_that_is_odd_name_nothing() -> None:
    for card in ({}, {"configs": None}, {"configs": "x"}, {"configs": ["x", {"config_name": "a"}]}, None, []):
        assert list(places(card)) == []


@pytest.fixture(scope="module")
def trap() -> Iterator[tuple[str, list[str]]]:
    """A server that no pod may ask, and what it was asked."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"text\nleak\n"[:9])

        do_GET = do_HEAD = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_a_card_makes_the_job_ask_no_other_address_and_read_no_file_of_the_pod(
    trap: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, seen = trap
    secret = tmp_path / "secret.csv"
    secret.write_text("text\ncanary\n")
    foreign = [f"simplecache::{address}/x.csv", str(secret)]
    with hub() as (endpoint, _, files):
        for number, place in enumerate(foreign):
            home = tmp_path / str(number)
            home.mkdir()
            config = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": place}]})
            files["README.md"] = f"---\n{config}---\n".encode() if number % 2 else b"# Nothing\n"
            files.pop(".huggingface.yaml", None)
            if number % 2 == 0:
                files[".huggingface.yaml"] = config.encode()
            [answer] = ask(endpoint, home, ({"name": "team/reviews", "blockSize": 8}, "CausalLM", None))
            assert answer["reason"] == "DatasetInvalid", answer
            assert answer["text"].startswith("spec.dataset.name: the card of team/reviews names data outside")
            assert place in answer["text"]
            assert "canary" not in json.dumps(answer)
    assert seen == []
