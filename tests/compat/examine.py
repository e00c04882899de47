"""What one version of transformers makes of published folders: run by both interpreters, imports nothing of ours.

Reads a JSON object of name → {folder, auto, pipeline, texts} from its standard input, writes name → findings.
"""

import json
import sys
import traceback

import torch
import transformers


def examine(folder, auto, pipeline, texts):
    """Tokenizer, model and pipeline, as its user would load them, and what they answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, loading = getattr(transformers, auto).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"]
    if pipeline == "text-classification":
        labels = torch.arange(len(texts)) % model.config.num_labels
    with torch.no_grad():
        outputs = model.eval()(**batch, labels=labels)
    asked = transformers.pipeline(pipeline, model=folder, device="cpu")
    return {
        "class": type(tokenizer).__name__,
        "ids": tokenizer(texts)["input_ids"],
        "decoded": [tokenizer.decode(ids) for ids in tokenizer(texts)["input_ids"]],
        "special": sorted(set(tokenizer.all_special_ids)),
        "limit": tokenizer.model_max_length,
        "side": tokenizer.padding_side,
        "labels": model.config.id2label if pipeline == "text-classification" else {},
        "keys": {name: sorted(map(str, keys)) for name, keys in loading.items() if keys},
        "loss": float(outputs.loss),
        "logits": outputs.logits.flatten().tolist(),
        "generation": _generation(model),
        "answer": _answer(asked, texts[0]),
    }


def _generation(model):
    """Its generation settings, as far as somebody gave them."""
    settings = getattr(model, "generation_config", None)
    if settings is None or not model.can_generate():
        return {}
    found = settings.to_dict()
    # Which version wrote it is another thing than what it says.
    return {name: value for name, value in found.items() if value is not None and name != "transformers_version"}


def _answer(asked, text):
    if asked.task == "text-generation":
        return asked(text, do_sample=False, max_new_tokens=5)[0]["generated_text"]
    if asked.task == "fill-mask":
        return [found["token"] for found in asked(text.replace("river", asked.tokenizer.mask_token), top_k=1)]
    return asked(text)[0]["label"]


def main():
    """One bad folder spoils its own findings only."""
    found = {"version": transformers.__version__}
    for name, options in json.load(sys.stdin).items():
        try:
            found[name] = examine(**options)
        except Exception as error:  # noqa: BLE001 - is the finding
            last = traceback.format_exc(limit=-1).strip().splitlines()
            found[name] = {"error": f"{type(error).__name__}: {error} ({last[1].strip()})"}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
