"""``lmft init``: what is proposed for which rows, and the manifest that is written."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lmft_api.manifest.reader import read_documents
from lmft_api.manifest.validation import document_problems
from lmft_api.tasks import Task
from lmft_job.cli import commands
from lmft_job.cli.init.proposal import propose
from lmft_job.errors import UnavailableError

CHAT = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("rows", "task", "fields"),
    [
        ([{"id": 1, **CHAT}], Task.CAUSAL_LM, {"messagesField": "messages"}),
        ([{"conversations": [{"from": "human", "value": "Hi"}]}], Task.CAUSAL_LM, {"messagesField": "conversations"}),
        (
            [{"Question": "Why?", "Answer": "So.", "topic": "x"}, {"Question": "How?", "Answer": "", "topic": "y"}],
            Task.CAUSAL_LM,
            {"promptField": "Question", "completionField": "Answer"},
        ),
        (
            [{"instruction": "Sum", "input": "", "output": "3"}, {"instruction": "Sum", "input": "", "output": "four"}],
            Task.CAUSAL_LM,
            {"promptField": "instruction", "completionField": "output"},
        ),
        (
            [{"review": "Good film", "stars": "5"}, {"review": "Bad film", "stars": "1"}],
            Task.SEQUENCE_CLASSIFICATION,
            {"textField": "review", "labelField": "stars"},
        ),
        (
            [{"text": "Good film", "label": "pos"}, {"text": "Bad film", "label": "neg"}],
            Task.SEQUENCE_CLASSIFICATION,
            {"textField": "text", "labelField": "label"},
        ),
        ([{"text": "One label is none", "label": "pos"}] * 2, Task.CAUSAL_LM, {"textField": "text"}),
        ([{"id": "a-1", "body": {"parts": ["A", "long text"]}}], Task.CAUSAL_LM, {"textField": "body.parts"}),
        ([{"title": "A rather long title", "text": "short"}], Task.CAUSAL_LM, {"textField": "text"}),
    ],
)
def test_rows_suggest_a_task_and_its_fields(rows, task, fields):
    found = propose(rows)

    assert (found.task, found.fields) == (task, fields)


def test_a_task_that_the_user_names_is_taken():
    rows = [{"text": "Good film", "label": "pos"}, {"text": "Bad film", "label": "neg"}]

    found = propose(rows, Task.MASKED_LM)

    assert (found.task, found.fields) == (Task.MASKED_LM, {"textField": "text"})


@pytest.mark.parametrize(
    ("rows", "task", "words"),
    [
        ([{"a": 1, "b": "2.5"}], None, "no column contains text; the rows have a, b"),
        ([{"text": "x"}], Task.SEQUENCE_CLASSIFICATION, "no column looks like a label; name it label"),
    ],
)
def test_rows_that_fit_no_task_are_refused_with_what_they_have(rows, task, words):
    with pytest.raises(ValueError, match=words):
        propose(rows, task)


def _init(*words: str, answers: str | None = None):
    return CliRunner().invoke(commands.app, ["init", *words], input=answers)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["My Chats 100%.jsonl", "folder"])
def test_a_valid_manifest_is_written_for_files_and_folders(here: Path, place: str):
    path = here / place
    if place == "folder":
        path.mkdir()
        path = path / "a.jsonl"
    path.write_text("".join(json.dumps(CHAT) + "\n" for _ in range(3)))

    done = _init(place, "--yes")

    assert done.exit_code == 0, done.output
    written = next(here.glob("*.yaml"))
    assert written.name == ("folder.yaml" if place == "folder" else "my-chats-100.yaml")
    manifest = yaml.safe_load(written.read_text())
    assert document_problems(manifest) == []
    spec = manifest["spec"]
    assert spec["dataset"]["files"] == [
        f"file://{here}/folder/*.jsonl" if place == "folder" else f"file://{here}/My Chats 100%25.jsonl"
    ]
    assert spec["dataset"]["messagesField"] == "messages"
    assert spec["sample"] == {"prompts": ["Hi"]}


def test_names_that_look_like_numbers_stay_names(here: Path):
    (here / "1e5.csv").write_text(
        "1e3,label\n" + "some words that are long enough to be a text,a\nand more of them here,b\n" * 3
    )

    done = _init("1e5.csv", "--yes")

    assert done.exit_code == 0, done.output
    (document,) = read_documents(here / "1e5.yaml")  # as kubectl reads it
    assert document_problems(document.content) == []
    assert document.content["metadata"]["name"] == "1e5"
    assert document.content["spec"]["dataset"]["textField"] == "1e3"


def test_what_is_left_out_of_a_mixed_folder_is_told(here: Path):
    (here / "mixed").mkdir()
    for name in ("a.jsonl", "b.json", "c.NDJSON"):
        (here / "mixed" / name).write_text(json.dumps(CHAT) + "\n")
    for name in ("d.csv", "README.md", "notes.txt", "e.md"):
        (here / "mixed" / name).write_text("question,answer\nWhy?,So.\n")

    done = _init("mixed", "--yes")

    assert done.exit_code == 0, done.output
    assert "Left out, since a run reads files of one format: 1 of .csv, 2 of .md, 1 of .txt." in done.output
    files = yaml.safe_load((here / "mixed.yaml").read_text())["spec"]["dataset"]["files"]
    assert files == [f"file://{here}/mixed/*{ending}" for ending in (".NDJSON", ".json", ".jsonl")]


@pytest.mark.parametrize(
    ("files", "written"),
    [
        ({"tokenizer_config.json": "{}"}, {"name": "ChatML"}),
        ({"tokenizer_config.json": '{"chat_template": "{{ 1 }}"}'}, None),
        ({"tokenizer_config.json": "{}", "chat_template.jinja": "{{ 1 }}"}, None),
    ],
)
def test_a_model_without_a_chat_template_gets_one(here: Path, files, written):
    (here / "base model").mkdir()
    for name, text in files.items():
        (here / "base model" / name).write_text(text)
    (here / "a.jsonl").write_text(json.dumps(CHAT) + "\n")

    done = _init("a.jsonl", "--yes", "--model", f"file://{here}/base%20model")

    assert done.exit_code == 0, done.output
    assert yaml.safe_load((here / "a.yaml").read_text())["spec"]["dataset"].get("chatTemplate") == written
    assert "# chatTemplate" not in (here / "a.yaml").read_text()


def test_a_template_is_at_hand_where_it_is_not_known_whether_the_model_has_one(here: Path):
    (here / "a.jsonl").write_text(json.dumps(CHAT) + "\n")

    assert _init("a.jsonl", "--yes", "--model", "org/model").exit_code == 0

    text = (here / "a.yaml").read_text()
    assert "chatTemplate" not in yaml.safe_load(text)["spec"]["dataset"]
    chosen = yaml.safe_load(text.replace("# chatTemplate", "chatTemplate"))
    assert chosen["spec"]["dataset"]["chatTemplate"] == {"name": "ChatML"}
    assert document_problems(chosen) == []


def test_choices_of_the_command_line_stand(here: Path):
    (here / "notes.txt").write_text("One line.\nAnother line.\n")

    done = _init("notes.txt", "--model", "org/model", "--name", "mine", "--task", "mlm", "-f", "own.yaml")

    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load((here / "own.yaml").read_text())
    assert manifest["metadata"] == {"name": "mine"}
    assert manifest["spec"]["model"] == {"name": "org/model"}
    assert manifest["spec"]["task"] == "MaskedLM"
    assert document_problems(manifest) == []


@pytest.mark.parametrize(
    ("files", "words", "told"),
    [
        ({"a.txt": "x\n", "a.yaml": "mine"}, ["a.txt"], "a.yaml exists; choose another name with --file"),
        ({"a.txt": "x\n", "b.csv": "a,b\n1,2\n"}, ["a.txt", "b.csv"], "several formats (csv, text)"),
        ({"a.xlsx": "x"}, ["a.xlsx"], "its ending tells no format"),
        ({"a.csv": "PK\x03\x04"}, ["a.csv"], "save the sheet as CSV"),
        ({"a.txt": "\n"}, ["a.txt"], "contains no rows"),
        ({}, ["no.csv"], "no file matches"),
        ({}, ["."], "no file in this folder ends in .jsonl"),
        ({"a.txt": "x\n"}, ["a.txt", "--task", "Chat"], "'Chat' is not a task; choose one of CausalLM"),
        ({"a.txt": "x\n"}, ["a.txt", "--name", "Not a name"], "metadata.name: "),
    ],
)
def test_what_cannot_be_written_is_told_and_nothing_is_left(here: Path, files, words, told):
    for name, text in files.items():
        (here / name).write_text(text)

    done = _init(*words, "--yes")

    assert done.exit_code == 2
    assert told in done.output
    assert {path.name: path.read_text() for path in here.iterdir()} == files


def test_a_line_that_is_no_json_is_told_and_the_conversation_before_it_is_no_table(here: Path):
    (here / "a.jsonl").write_text(json.dumps(CHAT) + '\n{"messages": [}\n')

    done = _init("a.jsonl", "--yes")

    assert done.exit_code == 2
    [said] = done.output.splitlines()
    assert "line 2 is not JSON" in said


def test_a_files_name_cannot_leave_the_comment(here: Path):
    name = "a\nspec: {task: MaskedLM}\n#.txt"
    (here / name).write_text("One line.\nAnother line.\n")

    done = _init(name, "--yes", "-f", "with blank.yaml")

    assert done.exit_code == 0, done.output
    assert yaml.safe_load((here / "with blank.yaml").read_text())["spec"]["task"] == "CausalLM"
    assert done.output.endswith("Next: lmft validate 'with blank.yaml'; lmft run 'with blank.yaml'\n")


def test_storage_that_does_not_answer_is_told(here: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*given, **options):
        raise UnavailableError("s3://corpora could not be reached")

    monkeypatch.setattr("lmft_job.cli.init.data.find_files", unreachable)

    done = _init("s3://corpora/a.csv", "--yes")

    assert (done.exit_code, done.output) == (2, "s3://corpora could not be reached\n")
