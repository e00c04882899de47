"""Commands that need no cluster do what their page says; those of make are looked up, for CI runs them in earnest."""

import sys
from pathlib import Path

import pytest
from docs.pages import ROOT, Block, blocks, transcript
from docs.workplace import Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    place.program("make", f'exec /usr/bin/env PATH="${{PATH#*:}}" make --dry-run --directory "{ROOT}" "$@"')
    # The real one trains for two minutes; `make demo` and the cluster tests run it as it stands.
    place.example(
        "quickstart.yaml",
        model={
            "fromConfig": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 128},
            "tokenizer": {"trainVocabSize": 400},
        },
        training={"epochs": None, "maxSteps": 2},
        sample={"maxNewTokens": 4},
    )
    small = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2, "max_position_embeddings": 512}  # fmt: skip
    place.example(
        "questions.yaml",
        model={"fromConfig": small, "tokenizer": {"trainVocabSize": 400}},
        training={"epochs": None, "maxSteps": 2},
        sample={"maxNewTokens": 4},
    )
    place.program("python", f'exec "{sys.executable}" "$@"')
    return place


@pytest.mark.parametrize("block", blocks("sh local"), ids=lambda block: block.where)
def test_the_commands_succeed(block: Block, workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.type(block, block.text, {"LMFT_CACHE": str(tmp_path / "cache")})

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", blocks("console local"), ids=lambda block: block.where)
def test_the_transcript_is_what_is_printed(block: Block, workplace: Workplace) -> None:
    for command, printed in transcript(block):
        assert workplace.type(block, f"{command} || true").stdout == printed


def test_ci_runs_what_the_pages_only_look_up() -> None:
    script = (ROOT / ".ci/run").read_text()

    assert {line.removeprefix("make ") for line in script.splitlines() if line.startswith("make ")} >= {
        "lint", "test", "demo", "e2e",
    }  # fmt: skip
