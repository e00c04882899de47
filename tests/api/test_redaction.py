"""What is taken for a credential, and what of prose, code and samples is not."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmft_api.text.redaction import REDACTED, is_random, redact

LETTERS = string.ascii_letters + string.digits


def chars(count: int, alphabet: str = LETTERS, seed: int = 7) -> str:
    """So many random characters, with a letter of each case and a digit among them."""
    drawn = random.Random(seed)
    return "aA1" + "".join(drawn.choice(alphabet) for _ in range(count - 3))


BODY = "\n".join(chars(64, LETTERS + "+/", seed) for seed in range(3))
TOKENS = {
    "Google key": "AIza" + chars(35),
    "GitHub, personal": "ghp_" + chars(36),
    "GitHub, server": "ghs_" + chars(36),
    "GitHub, fine": "github_pat_" + chars(22) + "_" + chars(59),
    "GitLab": "glpat-" + chars(20),
    "OpenAI": "sk-" + chars(48),
    "OpenAI, project": "sk-proj-" + chars(60, LETTERS + "-_"),
    "Anthropic": "sk-ant-api03-" + chars(60, LETTERS + "-_"),
    "Slack": "xoxb-123456789012-1234567890123-" + chars(24),
    "Hugging Face": "hf_" + chars(34),
    "AWS": "AKIA" + "ABCDEFGH234567QX",
    "npm": "npm_" + chars(36),
    "JWT": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0." + chars(40, LETTERS + "-_"),
    "JWT, cut": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0",
    "Vault": "hvs." + chars(24),
    "SendGrid": "SG." + chars(22) + "." + chars(43),
    "PEM": f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\nshort=\n-----END RSA PRIVATE KEY-----",
    "PEM, cut": f"-----BEGIN PRIVATE KEY-----\n{BODY}",
    "PEM, encrypted": f"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n{BODY}\n-----END EC PRIVATE KEY-----",
    "PEM in JSON": "-----BEGIN PRIVATE KEY-----\\n" + BODY.replace("\n", "\\n") + "\\n-----END PRIVATE KEY-----",
}
VALUES = [
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "0123456789abcdef0123456789abcdef",
    "550e8400-e29b-41d4-a716-446655440000",
    "Tr0ub4dor&3!xKcd#936",
    chars(16),
    chars(40, LETTERS + "+/") + "==",
    chars(24, string.hexdigits.lower()),
]
FORMS = [
    "{name}={value}", "{name}: {value}", '"{name}": "{value}"', "{name} = '{value}'", "{name}:\t{value}",
    "export {name}={value};", "?{name}={value}&x=1",
]  # fmt: skip
NAMES = [
    "AWS_SECRET_ACCESS_KEY",
    "api_key",
    "apiKey",
    "password",
    "db-password",
    "client_secret",
    "token",
    "AccountKey",
]


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("around", ["{}", "it is {}, you see", "'{}'", "({})", "a={}\n", "said: {}\nmore"])
def test_a_token_goes_and_what_stands_around_it_stays(token: str, around: str) -> None:
    said, count = redact(around.format(token))
    assert said == around.format(REDACTED)
    assert count == 1


# An ampersand in a value ends it in an address.
PAIRS = [(form, value) for form in FORMS for value in VALUES if not ("&" in form and "&" in value)]


@pytest.mark.parametrize(("form", "value"), PAIRS)
def test_a_random_value_of_a_telling_name_goes(form: str, value: str) -> None:
    for name in NAMES:
        said, count = redact(form.format(name=name, value=value))
        assert value not in said, said
        assert name in said
        assert count == 1


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-estimator-doc-link and sk-toggleable__label-arrow",
        "hf_hub_download, hf_transfer and hf_datasets_offline",
        "AKIA is a prefix, and AIza another; ghp_ too, glpat- and xoxb-.",
        "a tokenizer: SmolLM2-135M-Instruct; model_key: meta-llama/Llama-3.2-1B-Instruct",
        "key: model.layers.0.self_attn.q_proj.weight",
        "sorted(rows, key=operator.itemgetter(1), reverse=True)",
        "token=AddedToken('<|reserved_special_token_17|>')",
        "the password: correct horse battery staple",
        "secretKeyRef: {name: s3, key: AWS_SECRET_ACCESS_KEY}",
        "PRIMARY KEY: customer_identification_number",
        "key=/usr/lib/python3.11/site-packages/transformers",
        "-----BEGIN PRIVATE KEY----- opens one, -----END PRIVATE KEY----- ends it.",
        "-----BEGIN CERTIFICATE-----\nMIIBszCCARwCCQD\n-----END CERTIFICATE-----",
        "eyJ is how JSON begins in base64, as in eyJhbGci.",
        "hf.co/sk-1, token: 12345678901234567890, key=aaaaaaaaaaaaaaaaaaaa1111",
        "git 3df30f2c0ffee1234567890abcdef1234567890a, sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d",
        "https://huggingface.co/docs?token=none and https://example.com/a:b@c",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == (text, 0)


def test_the_quickstarts_texts_stay() -> None:
    """The corpus that the quickstart trains on and quotes, and the pages of Python's standard library about secrets."""
    import getpass
    import hmac
    import secrets
    import ssl
    import tokenize
    from pydoc_data.topics import topics

    for name, text in topics.items():
        assert redact(text) == (text, 0), name
    for module in (getpass, hmac, secrets, ssl, tokenize):
        assert module.__file__
        with open(module.__file__, encoding="utf-8") as file:
            text = file.read()
        assert redact(text) == (text, 0), module.__name__


@given(st.text(max_size=300))
def test_any_text_is_scrubbed_once_and_for_all(text: str) -> None:
    said, count = redact(text)
    assert redact(said)[0] == said
    assert (count == 0) == (said == text)


@pytest.mark.parametrize(
    "word", ["internationalization", "tokenization_utils_base", "aaaaaaaaaaaaaaaa", "2026-01-31T12:00:00Z"]
)
def test_words_and_times_are_not_random(word: str) -> None:
    assert not is_random(word)
