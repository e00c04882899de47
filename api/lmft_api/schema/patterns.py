"""Patterns of names, addresses and quantities, each with a description for people."""

import re

from lmft_api.addresses import OBJECT_STORES

DECIMAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUALIFIED_NAME_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
IMPORT_PATH_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
FIELD_PATH_PATTERN = r"^[^. \t\n\f\r]+(\.[^. \t\n\f\r]+)*$"
MOUNT_PATH_PATTERN = r"^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$"
# Spaces are listed rather than written \s: in Go that means ASCII ones, in Python and Rust all of Unicode's. A space
# is allowed inside a key, but at its end it is a typing error.
_SCHEME = OBJECT_STORES[0] if len(OBJECT_STORES) == 1 else f"({'|'.join(OBJECT_STORES)})"
_BUCKET = rf"{_SCHEME}://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]"
_KEY = r"[^\t\n\f\r]*[^ \t\n\f\r]"
SOURCE_PATTERN = rf"^({_BUCKET}(/({_KEY})?)?|file://{_KEY}|[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?)$"
HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
STORAGE_URI_PATTERN = rf"^({_BUCKET}(/({_KEY})?)?|file:///({_KEY})?)$"
FILE_URI_PATTERN = rf"^({_BUCKET}/{_KEY}|file://{_KEY})$"
SECRET_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"  # noqa: S105 - the name of a key
# No user, password, query or fragment: keys come from Secrets, and these parts of an address are where they leak.
TRACKER_URI_PATTERN = (
    r"^https?://([a-z0-9]([-a-z0-9.]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9~_-][A-Za-z0-9.~_-]*)*/?$"
)
WANDB_PROJECT_PATTERN = r"^[^/\\#?%:]+$"
WANDB_ENTITY_PATTERN = r"^[A-Za-z0-9_][-._A-Za-z0-9]*$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MODULE_PATTERN = r"^(all-linear|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)$"
IMAGE_PATTERN = r"^[a-z0-9][A-Za-z0-9._:/@-]*$"
PATTERN_HINTS: dict[str, str] = {
    DECIMAL_PATTERN: 'must be quoted decimal text such as "2e-5" or "0.01"',
    DNS_LABEL_PATTERN: "must be a DNS label: lower-case letters, digits and '-'",
    DNS_SUBDOMAIN_PATTERN: "must be a Kubernetes name: lower-case letters, digits, '-' and '.'",
    QUANTITY_PATTERN: 'must be a Kubernetes quantity such as "4", "500m" or "16Gi"',
    QUALIFIED_NAME_PATTERN: (
        "must be a Kubernetes qualified name such as example.com/team, at most 63 characters after the '/'"
    ),
    LABEL_VALUE_PATTERN: "must be a Kubernetes label value: letters, digits, '-', '_' and '.'",
    IMPORT_PATH_PATTERN: "must be a Python import path such as package.module.ClassName",
    SOURCE_PATTERN: "must be a hub id such as distilbert/distilgpt2, s3://bucket/folder or file:///folder",
    STORAGE_URI_PATTERN: "must be s3://bucket/prefix or file:///absolute/folder",
    HUB_ID_PATTERN: "must be a hub id such as dany0407/eli5_category; put addresses into files",
    REPOSITORY_PATTERN: "must be owner/name",
    FIELD_PATH_PATTERN: "must be a dotted path such as answers.text",
    MOUNT_PATH_PATTERN: "must be an absolute path such as /data, without '.' or '..' or a final '/'",
    SECRET_KEY_PATTERN: "must be a key of a Secret: letters, digits, '-', '_' and '.'",
    TRACKER_URI_PATTERN: (
        "must be an address such as https://mlflow.example.com, with a host in lower case and without user, password "
        "or query; keys come from the Secret"
    ),
    WANDB_PROJECT_PATTERN: "must be the name of a project, without / \\ # ? % and :",
    WANDB_ENTITY_PATTERN: "must be the name of a user or team of Weights & Biases: letters, digits, '-', '_' and '.'",
    VARIABLE_PATTERN: "must be a name such as MY_VARIABLE: letters, digits and '_'",
    MODULE_PATTERN: "must be all-linear, or the name of a module such as q_proj or self_attn.q_proj",
    IMAGE_PATTERN: "must be an image name such as registry.example.com/team/image:tag",
    FILE_URI_PATTERN: "must be s3://bucket/key or file:///path, with * and ? as wildcards",
}
"""A description of each pattern for people."""


def finds(pattern: str, text: str) -> bool:
    """Whether a pattern is found in the text, as CEL's ``matches`` finds it."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches, as in Go: in Python, ``$`` would also match before a final newline."""
    return re.match(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern, text) is not None
