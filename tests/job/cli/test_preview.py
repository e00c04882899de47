"""``lmft preview`` and ``lmft validate --data``: the data as the model sees it, without weights and training."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.chats import chat, turn
from support.local_runs import write_manifest

from lmft_job.cli.preview import check_data, preview


def chats(home: Path, *rows: Any, **dataset: Any) -> Path:
    """A manifest for conversations, with its file."""
    (home / "a.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return write_manifest(
        home,
        {
            "model": {"fromConfig": {"model_type": "llama"}, "tokenizer": {"trainVocabSize": 300}},
            "dataset": {
                "files": [(home / "a.jsonl").as_uri()], "format": "json", "messagesField": "messages",
                "chatTemplate": {"name": "ChatML"}, **dataset,
            },
        },
    )  # fmt: skip


def test_rows_are_shown_as_the_model_sees_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chats(
        tmp_path,
        *[chat("Where?", "Here.")] * 9,
        chat("Where?", " ".join(map(str, range(200)))),
        maxLength=64,
        testPercent=10,
    )

    code = preview(path, 1)

    printed = capsys.readouterr().out
    assert code == 0
    row = "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n«Here.<|im_end|>»\n"
    assert row in printed
    assert "1 row dropped, 0 truncated" in printed
    assert "1 conversation left out as longer than 64 tokens (maxLength)." in printed
    assert "≤ 32 tokens" in printed


def test_the_data_is_checked_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chats(tmp_path, *[chat("Where?", "Here.")] * 9, [turn("bot", "a")])

    code = check_data(path)

    assert code == 2
    assert "a.jsonl: line 10: message 1 has the role 'bot'; write user, assistant" in capsys.readouterr().err
