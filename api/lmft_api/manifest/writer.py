"""Writes manifests whose values kubectl reads as they were meant."""

from collections.abc import Sequence
from typing import Any

import yaml

from lmft_api.manifest.reader import PLAIN_SCALARS


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that Go's parser would take for something else, such as ``1e-4``."""


for _tag, _pattern, _first in PLAIN_SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def write_documents(documents: Sequence[Any], *, width: int = 110) -> str:
    """Plain data as YAML, a document for each: :func:`lmft_api.manifest.reader.read_documents` returns the same data.

    Args:
        documents: what JSON can hold.
        width: characters after which a line is broken.
    """
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return text
