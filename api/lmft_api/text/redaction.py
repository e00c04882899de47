"""Finds what looks like a credential in a text: by the formats of issuers, or as the value of a revealing name.

Every format has word boundaries and the issuer's length or alphabet, so that prose, code and the samples of a language
model are not changed. Sources: the issuers' documentation of their tokens' prefixes; RFC 7515 for JWS, RFC 7468 for
PEM.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

REDACTED = "[redacted]"

_BREAK = r"(?:\s|\\n|\\r|[|\"',+>])"
_SHAPES = (
    # A private key in PEM, truncated or whole; in JSON its line ends are written \n.
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s*(?:Proc-Type|DEK-Info|Version|Comment): .*)*"
    rf"(?:{_BREAK}*[A-Za-z0-9+/=]{{16,}})+"
    rf"(?:(?:{_BREAK}*[A-Za-z0-9+/=]{{1,76}})?{_BREAK}*-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?",
    r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?",  # a signed JWT, truncated or whole
    r"\beyJ[\w-]{10,}(?:\.[\w-]*){4}(?![\w.-])",  # an encrypted one
    r"\bAIza[\w-]{35}(?![\w-])",  # Google
    r"\bya29\.[\w-]{20,}",
    r"\bGOCSPX-[\w-]{28}(?![\w-])",
    r"\bgh[pousr]_[A-Za-z0-9]{36,251}\b",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b",
    r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-[\w-]{20,}(?:\.[\w-]+)*",  # GitLab
    r"\bsk-(?:[a-z0-9]+-){0,3}(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",  # OpenAI, Anthropic and others
    r"\b(?:sk|rk|whsec)_(?:live|test|[a-z]+)?_?(?=\w*\d)(?=\w*[A-Z])[A-Za-z0-9]{24,}\b",  # Stripe
    r"\bxox[abeoprs]-(?:\d-)?[0-9]{6,}-[\w-]{10,}",  # Slack
    r"\bxapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{20,}\b",
    r"\bhf_[A-Za-z0-9]{30,}\b",  # Hugging Face
    r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",  # AWS
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\bpypi-AgE[\w-]{50,}",
    r"\bdckr_[a-z]{3,4}_[\w-]{27}(?![\w-])",  # Docker
    r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])",  # SendGrid
    r"\bhv[sbr]\.[\w-]{24,}",  # Vault
    r"\bnvapi-[\w-]{60,}",  # NVIDIA
    r"\bgsk_[A-Za-z0-9]{52}\b",  # Groq
    r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b",  # Shopify
    r"\bdo[opr]_v1_[0-9a-f]{64}\b",  # DigitalOcean
    r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b",
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",  # name and password in an address
)
_SHAPE = re.compile("|".join(_SHAPES))
_TELLING = re.compile(
    r"(?i)(?:secret|token|passw(?:or)?d|passphrase|pwd|credentials?|auth(?:orization)?|bearer|key(?:[_-]?id)?)"
    r"[\"']?(?:\s*[=:]\s*|\s+(?=\S{20}))[\"']?(?:(?:bearer|basic|token)\s+)?"
    r"(?P<value>[^\s\"'`,;<>(){}\[\]|\\]{16,512})"
)
_UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUN = re.compile(r"[A-Za-z0-9+/]{12,}")
_AWS = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/]{40}")
_LEAST_BITS = 3.2


def redact(text: str, mark: str = REDACTED) -> tuple[str, int]:
    """The text with everything that looks like a credential replaced, and the number of replacements."""
    count = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return mark

    def replaced_value(match: re.Match[str]) -> str:
        nonlocal count
        value = match["value"]
        if not is_random(value):
            value = value.partition("&")[0]  # the rest are further parameters of a URL
        if mark in value or not is_random(value):
            return match[0]
        count += 1
        start = match.start("value") - match.start()
        return match[0][:start] + mark + match[0][start + len(value) :]

    return _TELLING.sub(replaced_value, _SHAPE.sub(replaced, text)), count


def is_random(value: str) -> bool:
    """Whether a value of 16 characters or more has high entropy, unlike words, paths, and names of modules or models.

    The entropy is Shannon's, of the character frequencies in the value itself, in bits per character: 3.2 and more for
    random hexadecimal digits, at most about 2.8 for a word written twice.
    """
    if len(value) < 16 or _entropy(value) < _LEAST_BITS:
        return False
    if _UUID.fullmatch(value):
        return True
    if "://" in value or value[0] in "/.~$%":
        return False
    return bool(_AWS.fullmatch(value)) or any(map(_mixes, _RUN.findall(value))) or _is_password(value)


def _mixes(run: str) -> bool:
    """Whether letters and digits alternate, as in no word; with a slash, both cases too, as in no path."""
    changes = sum(a.isdigit() != b.isdigit() for a, b in pairwise(run))
    cases = any(c.isupper() for c in run) and any(c.islower() for c in run)
    return changes >= 3 and (cases or "/" not in run)


def _is_password(value: str) -> bool:
    """Whether it has letters of both cases, digits, and at least two symbols that names do not contain."""
    signs = sum(not (c.isalnum() or c in "_-./:=+") for c in value)
    kinds: tuple[Callable[[str], bool], ...] = (str.isupper, str.islower, str.isdigit)
    return signs >= 2 and all(any(kind(c) for c in value) for kind in kinds)


def _entropy(value: str) -> float:
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
