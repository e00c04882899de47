"""What a real model says of many subjects, code and credentials among them: text that redaction must leave alone."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from lmft_api.text.redaction import redact

SUBJECTS = (
    "the with statement in Python", "how photosynthesis works", "a Dockerfile for a web server", "the French Empire",
    "how to reset a password", "a YAML file for a Kubernetes Deployment", "public and private keys", "the SHA-256 hash",
    "how to call a REST API with a bearer token", "a bash script that exports environment variables", "git commits",
    "an SQL table with a primary key", "how to read a CSV file in Python", "JSON Web Tokens", "the human immune system",
    "base64 encoding, with an example", "how to configure the AWS command line", "an nginx configuration with TLS",
    "UUIDs, with three examples", "a recipe for bread", "URLs and their parts, with examples", "how SSH keys are made",
    "a Python dictionary of settings for a database", "the prime numbers up to 200", "a short story about a lighthouse",
)  # fmt: skip
FORMS = ("Explain {}.", "Write a long example of {}.")
BATCH, DRAWS, TOKENS = 9, 4, 64


def said(model: Path) -> Iterator[str]:
    """Samples of the model, several for each prompt; seeded."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    torch.manual_seed(0)
    for form, number in itertools.product(FORMS, range(0, len(SUBJECTS), BATCH)):
        subjects = SUBJECTS[number : number + BATCH]
        turns = [[{"role": "user", "content": form.format(subject)}] for subject in subjects]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        made = network.generate(
            **inputs, do_sample=True, temperature=0.8, top_p=0.95, max_new_tokens=TOKENS, num_return_sequences=DRAWS
        )
        yield from tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def redactions(model: Path) -> tuple[int, int, list[str]]:
    """How many samples, of how many characters, and those that redaction would change."""
    samples = list(said(model))
    return len(samples), sum(map(len, samples)), [text for text in samples if redact(text)[1]]
