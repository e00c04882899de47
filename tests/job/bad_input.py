"""Ways to be wrong: manifests, models and data that cannot work, and what has to be said of each."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Change = dict[str, Any] | str | int | list[Any] | None


@dataclass(frozen=True)
class Wrong:
    """One way to be wrong.

    Attributes:
        spec: sections that are merged into a spec that works; None removes one. ``HOME`` stands for the run's folder.
        told: what must be said, one for each problem; a regular expression where it begins with its field.
        code: of the process.
        files: to write beside the manifest.
        task: of the spec that works.
        alone: whether sections replace those of the spec that works.
        patch: called in the process before it runs.
    """

    spec: dict[str, Change]
    told: tuple[str, ...]
    code: int = 2
    files: dict[str, bytes] = field(default_factory=dict)
    task: str = "CausalLM"
    alone: bool = False
    patch: Callable[[], None] = lambda: None


def data(body: bytes, *told: str, name: str = "bad.jsonl", **more: Any) -> Wrong:
    """A data file that is wrong."""
    kind = {"jsonl": "json", "txt": "text"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    spec = {"dataset": {"files": [f"file://HOME/{name}"], "format": kind, **more}}
    return Wrong(spec, told, files={name: body})


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def no_right_to_read() -> None:
    """Tests may run as root, to whom no file is closed."""
    opened = os.open

    def refuse(path: Any, *words: Any, **more: Any) -> int:
        if str(path).endswith("closed.jsonl"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **more)

    os.open = refuse


MANIFESTS: dict[str, Wrong] = {
    "unknown field": Wrong(
        {"dataset": {"textFeild": "x"}}, (r"spec\.dataset\.textFeild +unknown field; did you mean textField\?",)
    ),
    "unknown section": Wrong({"trainig": {}}, (r"spec\.trainig +unknown field; did you mean training\?",)),
    "wrong type": Wrong({"training": {"epochs": "three"}}, (r"spec\.training\.epochs +must be .*number",)),
    "text where a list is wanted": Wrong(
        {"sample": {"prompts": "The river"}}, (r"spec\.sample\.prompts +must be .*list",)
    ),
    "number where text is wanted": Wrong({"dataset": {"textField": 5}}, (r"spec\.dataset\.textField +must be .*text",)),
    "float where a quoted decimal is wanted": Wrong(
        {"training": {"learningRate": 2e-5}}, (r"spec\.training\.learningRate +must be quoted text such as \"2e-5\"",)
    ),
    "decimal that is none": Wrong(
        {"training": {"learningRate": "fast"}}, (r"spec\.training\.learningRate +must be quoted decimal text",)
    ),
    "out of bounds": Wrong({"dataset": {"testPercent": 99}}, (r"spec\.dataset\.testPercent +must be at most 90",)),
    "no such choice": Wrong(
        {"training": {"scheduler": "linear"}}, (r"spec\.training\.scheduler +must be one of .*did you mean Linear\?",)
    ),
    "both of name and fromConfig": Wrong(
        {"model": {"name": "a/b"}},
        (
            r"spec\.model +name and fromConfig are mutually exclusive",
            r"spec\.model\.tokenizer +trainVocabSize goes with",
        ),
    ),
    "neither of name and fromConfig": Wrong(
        {"model": {}}, (r"spec\.model +set name \(a pretrained model\) or fromConfig",), alone=True
    ),
    "both of epochs and maxSteps": Wrong(
        {"training": {"epochs": 1, "maxSteps": 5}}, (r"spec\.training +.*are mutually exclusive",)
    ),
    "files and builtin": Wrong(
        {"dataset": {"builtin": "PythonDocs"}}, (r"spec\.dataset +set exactly one of name, files and builtin",)
    ),
    "files without format": Wrong(
        {"dataset": {"files": ["file:///x"]}}, (r"spec\.dataset\.format +files whose endings do not agree",), alone=True
    ),
    "no tokenizer": Wrong(
        {"model": {"fromConfig": {"model_type": "gpt2"}}},
        (r"spec\.model\.tokenizer +fromConfig needs a tokenizer",),
        alone=True,
    ),
    "several devices": Wrong(
        {"resources": {"gpusPerNode": 2, "nodes": 2}},
        (
            r"spec\.resources\.gpusPerNode: lmft run trains on one GPU or the CPU; set 0 or 1",
            r"spec\.resources\.nodes: lmft run trains on this machine alone; set 1",
        ),
    ),
    "section missing": Wrong({"dataset": None}, (r"spec\.dataset +is required",)),
    "three at once": Wrong(
        {"dataset": {"textFeild": "x"}, "training": {"learningRate": 2e-5, "epochs": 0}},
        (
            r"spec\.dataset\.textFeild +unknown",
            r"spec\.training\.learningRate +must be quoted",
            r"spec\.training\.epochs +must be at least 1",
        ),
    ),
}

MODELS: dict[str, Wrong] = {
    "unknown model type": Wrong(
        {"model": {"fromConfig": {"model_type": "gtp2"}}},
        (r"spec\.model\.fromConfig\.model_type: .*did you mean gpt2",),
    ),
    "unknown setting": Wrong(
        {"model": {"fromConfig": {"model_type": "gpt2", "n_layr": 2}}},
        (r"spec\.model\.fromConfig\.n_layr: gpt2 has no such setting; did you mean n_layer",),
    ),
    "setting of another type": Wrong(
        {"model": {"fromConfig": {"model_type": "gpt2", "n_layer": "two"}}},
        (r"spec\.model\.fromConfig\.n_layer: must be a whole number, not 'two'",),
    ),
    "an activation that is none": Wrong(
        {"model": {"fromConfig": {"model_type": "gpt2", "activation_function": "gleu"}}},
        (r"spec\.model\.fromConfig\.activation_function: 'gleu' is not an activation function .*did you mean gelu\?",),
    ),
    "classes in the config": Wrong(
        {"model": {"fromConfig": {"model_type": "distilbert", "num_labels": 3, "problem_type": "regression"}}},
        (
            r"spec\.model\.fromConfig\.num_labels: the classes are those of spec\.dataset\.labelField",
            r"spec\.model\.fromConfig\.problem_type: 'regression' is not supported",
        ),
        task="SequenceClassification",
    ),
    "vocabulary too small": Wrong(
        {"model": {"fromConfig": {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "vocab_size": 20}}},
        (r"spec\.model\.fromConfig\.vocab_size: 20 is less than the tokenizer's \d+ tokens",),
    ),
    "no such folder": Wrong(
        {"model": {"name": "file:///nowhere"}},
        (r'spec\.model\.name: there is no folder "/nowhere"',),
        code=3,
        alone=True,
    ),
    "no weights as safetensors": Wrong(
        {"model": {"name": "file://HOME/pickled"}},
        (r"spec\.model\.name: it has no weights as safetensors \(pytorch_model\.bin is a pickle",),
        alone=True,
    ),
    "head missing": Wrong(
        {"task": "MaskedLM", "sample": None}, (r"spec\.task: MaskedLM does not work with a model of type gpt2",)
    ),
    "tokenizer without fast version": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/slow"}}},
        (r"spec\.model\.tokenizer\.name: its tokenizer ByT5Tokenizer has no fast version",),
    ),
    "tokenizer missing": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/empty"}}},
        (r"spec\.model\.tokenizer\.name: there is nothing below file://.*/empty",),
        code=3,
    ),
    "tokenizer unusable": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/odd"}}},
        (r"spec\.model\.tokenizer\.name: its tokenizer cannot be loaded",),
        files={"odd/config.json": b"{}"},
    ),
    "mask token absent": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/causal"}}},
        (r"spec\.task: MaskedLM needs a tokenizer with a mask token",),
        task="MaskedLM",
    ),
    "remote code": Wrong(
        {"model": {"name": "file://HOME/remote"}},
        (r"spec\.model\.name: this model runs code from its repository",),
        alone=True,
    ),
    "remote code not allowed": Wrong(
        {"model": {"name": "file://HOME/remote", "trustRemoteCode": True}},
        (r"spec\.model\.trustRemoteCode: runs code .* not allowed here",),
        alone=True,
    ),
    "callbacks not allowed": Wrong(
        {"training": {"callbacks": ["json.JSONDecoder"], "trainerClass": "json.JSONEncoder"}},
        (r"spec\.training\.callbacks\[0\]: runs your own code", r"spec\.training\.trainerClass: runs your own code"),
    ),
    "block over the positions": Wrong(
        {"dataset": {"blockSize": 512}},
        (r"spec\.dataset\.blockSize: 512 is more than the 48 positions of the model; set at most 48",),
    ),
    "prompt without a mask": Wrong(
        {"sample": {"prompts": ["The river", "The <mask>"]}},
        (r"spec\.sample\.prompts\[0\]: has no <mask>",),
        task="MaskedLM",
    ),
    "prompt too long": Wrong(
        {"sample": {"prompts": ["fine", "river " * 80]}},
        (r"spec\.sample\.prompts\[1\]: has \d+ tokens, and the model takes 47; shorten it",),
    ),
    "prompt too long for a named tokenizer": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/causal"}}, "sample": {"prompts": ["river " * 80]}},
        (r"spec\.sample\.prompts\[0\]: has \d+ tokens",),
    ),
}

NO_ROWS = (
    r"spec\.dataset\.split: there are no rows to train on",
    r"spec\.dataset\.testPercent: there are no rows to evaluate on",
)

DATA: dict[str, Wrong] = {
    "no such text field": Wrong(
        {"dataset": {"textField": "body"}}, (r"spec\.dataset\.textField: no field 'body'; the data has text, label",)
    ),
    "misspelt text field": Wrong(
        {"dataset": {"textField": "txet"}}, (r"spec\.dataset\.textField: .*did you mean text\?",)
    ),
    "a text field of numbers": data(
        lines(*[{"text": 5}] * 60), r"spec\.dataset\.textField: 'text' holds int values, not text"
    ),
    "a text field that is a struct": data(
        lines(*[{"text": {"body": "x"}}] * 60),
        r"spec\.dataset\.textField: .*a struct with the fields body; name one of them",
    ),
    "blank texts only": data(
        lines(*[{"text": "  "}] * 60),
        r"spec\.dataset\.split: none of the \d+ rows to train on has a value in 'text'",
        r"spec\.dataset\.testPercent: none of",
    ),
    "label absent": Wrong(
        {"dataset": {"labelField": "mood"}},
        (r"spec\.dataset\.labelField: no field 'mood'; the data has text, label",),
        task="SequenceClassification",
    ),
    "label continuous": Wrong(
        {"dataset": {"files": ["file://HOME/continuous.jsonl"]}},
        (r"spec\.dataset\.labelField: .*is continuous",),
        task="SequenceClassification",
    ),
    "one label only": Wrong(
        {"dataset": {"files": ["file://HOME/same.jsonl"]}},
        (r"spec\.dataset\.labelField: .*only one class",),
        task="SequenceClassification",
    ),
    "empty split": Wrong({"dataset": {"split": "train[200:]"}}, NO_ROWS),
    "empty evaluation split": Wrong(
        {"dataset": {"evalSplit": "train[200:]"}}, (r"spec\.dataset\.evalSplit: there are no rows to evaluate on",)
    ),
    "unknown split": Wrong({"dataset": {"split": "validation"}}, (r"spec\.dataset\.split: .* has one split, train",)),
    "no split at all": Wrong(
        {"dataset": {"split": "train+test"}}, (r"spec\.dataset\.split: 'train\+test' is not a split",)
    ),
    "fewer tokens than one block": Wrong(
        {"dataset": {"split": "train[:2]", "blockSize": 48}},
        (
            r"spec\.dataset\.blockSize: the training texts .* fewer than one block of 48",
            r"spec\.dataset\.blockSize: the held-out texts",
        ),
    ),
    "no such file": Wrong(
        {"dataset": {"files": ["file:///nowhere/x.jsonl"]}},
        (r"spec\.dataset\.files\[0\]: no file matches /nowhere/x\.jsonl",),
        code=3,
    ),
    "two files missing": Wrong(
        {"dataset": {"files": ["file:///nowhere/x.jsonl", "file://HOME/*.csv"]}},
        (r"spec\.dataset\.files\[0\]: no file matches .*; spec\.dataset\.files\[1\]: no file .* has .*closed\.jsonl",),
        code=3,
    ),
    "a folder for a file": Wrong(
        {"dataset": {"files": ["file://HOME"]}},
        (r"spec\.dataset\.files\[0\]: .* is a folder; name the files in it, such as file://.*/\*\.jsonl",),
        code=3,
    ),
    "rows on both sides": Wrong(
        {"dataset": {"split": "train", "evalSplit": "train[:10%]"}},
        (
            r"spec\.dataset\.evalSplit: 'train\[:10%\]' has 7 of the rows that 'train' trains on; separate them, "
            r"as with split train\[:90%\] and evalSplit train\[90%:\]",
        ),
    ),
    "an array and garbage": data(b'[{"text": "one"}]\nnonsense', r"spec\.dataset\.files: .*line 2: expected an object"),
    "deep nesting in an array": data(
        b'[{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]",
        r"spec\.dataset\.files: .*line 1 is nested too deeply",
    ),
    "a table by columns": data(
        json.dumps({"text": {str(n): "words" for n in range(20_000)}}).encode(),
        r"spec\.dataset\.files: .*is a table of 20,000 rows written by columns; write one object per line, with pandas",
    ),
    "a Git LFS pointer": data(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        r"spec\.dataset\.files: .*is a Git LFS pointer, not the data itself; fetch that with git lfs pull",
    ),
    "conversations": data(
        lines(*[{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]}] * 60),
        r"spec\.dataset\.textField: 'messages' holds conversations: .* name their field in spec.dataset.messagesField",
        textField="messages",
    ),
    "a field of conversations": data(
        lines(*[{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]}] * 60),
        r"spec\.dataset\.textField: 'messages\.content' holds conversations",
        textField="messages.content",
    ),
    "a class with one row": Wrong(
        {"dataset": {"files": ["file://HOME/rare.jsonl"], "split": "train[:50]", "evalSplit": "train[50:]"}},
        (r"spec\.dataset\.labelField: .*no training row has: 'c' \(1 row\)\. Add rows of them, remove them, or",),
        task="SequenceClassification",
        files={"rare.jsonl": lines(*({"text": "words", "label": "ab"[n % 2] if n < 59 else "c"} for n in range(60)))},
    ),
    "unreadable file": Wrong(
        {"dataset": {"files": ["file://HOME/closed.jsonl"]}},
        (r"spec\.dataset\.files\[0\]: .*closed\.jsonl cannot be read \(Permission denied\)",),
        code=3,
        patch=no_right_to_read,
    ),
    "a path outside": Wrong(
        {"dataset": {"files": ["file:///proc/self/environ"]}},
        (r"spec\.dataset\.files\[0\]: /proc/self/environ lies outside",),
    ),
    "a path that climbs": Wrong(
        {"dataset": {"files": ["file://HOME/../x.jsonl"]}}, (r"spec\.dataset\.files\[0\]: .* leads outside by '\.\.'",)
    ),
    "a link to the outside": Wrong(
        {"dataset": {"files": ["file://HOME/link.jsonl"]}}, (r"spec\.dataset\.files\[0\]: .* lies outside",)
    ),
    "malformed line": data(
        lines({"text": "one"}) + b'{"text": \n', r"spec\.dataset\.files: .*bad\.jsonl: line 2 is not JSON"
    ),
    "no object in a line": data(b'"text"\n', r"spec\.dataset\.files: .*: line 1 is not an object"),
    "array cut short": data(b'[{"text": "one"},\n{"text": "two"}', r"spec\.dataset\.files: .*line 2 is not JSON"),
    "json not UTF-8": data(b'{"text": "caf\xe9"}\n', r"spec\.dataset\.files: .*byte 13 \(line 1\) is not UTF-8"),
    "text not UTF-8": data(b"one\n\xff\n", r"spec\.dataset\.files: .*byte 4 \(line 2\) is not UTF-8", name="bad.txt"),
    "csv with too many values": data(
        b"text,label\none,1\ntwo,2,3\n", r"spec\.dataset\.files: .*line 3 has 3 values", name="bad.csv"
    ),
    "no parquet": data(
        b"PAR1 but not really", r"spec\.dataset\.files: .*not a readable parquet file", name="bad.parquet"
    ),
    "empty file": data(b"", *NO_ROWS),
}

OUTPUT: dict[str, Wrong] = {
    "output that cannot be written": Wrong(
        {"output": {"uri": "file:///dev/null/out"}}, (r"spec\.output\.uri: ",), code=3
    ),
}

EVERYWHERE: dict[str, Wrong] = {
    "two bad lines, a block too long and a prompt too long": Wrong(
        {
            "model": {"tokenizer": {"name": "file://HOME/causal"}},
            "dataset": {"files": ["file://HOME/bad.jsonl"], "blockSize": 64},
            "sample": {"prompts": ["river " * 80]},
        },
        (
            r"spec\.sample\.prompts\[0\]: has",
            r"spec\.dataset\.blockSize: 64 is more than",
            r"spec\.dataset\.files: .*line 1 is not JSON",
            r"spec\.dataset\.files: .*line 3 is not JSON",
        ),
        files={"bad.jsonl": b'nonsense\n{"text": "one"}\n{\n'},
    ),
    "a tokenizer without a mask, and no such text field": Wrong(
        {"model": {"tokenizer": {"name": "file://HOME/causal"}}, "dataset": {"textField": "body"}},
        (r"spec\.task: MaskedLM needs a tokenizer with a mask token", r"spec\.dataset\.textField: no field 'body'"),
        task="MaskedLM",
    ),
    "a slow tokenizer, an unknown setting and a file that is not there": Wrong(
        {
            "model": {"fromConfig": {"model_type": "gpt2", "n_layr": 1}, "tokenizer": {"name": "file://HOME/slow"}},
            "dataset": {"files": ["file:///nowhere/x.jsonl"]},
        },
        (
            r"spec\.model\.tokenizer\.name: its tokenizer ByT5Tokenizer has no fast version",
            r"spec\.model\.fromConfig\.n_layr: gpt2 has no such setting",
            r"spec\.dataset\.files\[0\]: no file matches",
        ),
    ),
    "a prompt without a mask for a tokenizer yet to be trained, and a malformed line": Wrong(
        {"dataset": {"files": ["file://HOME/bad.jsonl"]}, "sample": {"prompts": ["The river"]}},
        (r"spec\.sample\.prompts\[0\]: has no <mask>", r"spec\.dataset\.files: .*line 1 is not JSON"),
        files={"bad.jsonl": b"nonsense\n"},
        task="MaskedLM",
    ),
}

TABLE = {**MANIFESTS, **MODELS, **DATA, **OUTPUT, **EVERYWHERE}
