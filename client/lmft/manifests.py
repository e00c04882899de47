"""What may be given for a manifest, and the resource that is made of it. Valid ones only."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmft.errors import InvalidManifest
from lmft_api import API_VERSION, KIND
from lmft_api.manifest.reader import Document, is_foreign, problems_of, read_documents, read_text
from lmft_api.manifest.validation import Problem
from lmft_api.spec import LMFineTuneSpec

Manifest = str | Path | Mapping[str, Any] | LMFineTuneSpec
"""A file (a path, or text that ends in .yaml, .yml or .json), YAML text, a whole resource, or a spec alone."""
_ENDINGS = (".yaml", ".yml", ".json")
_TOP = frozenset({"apiVersion", "kind", "metadata", "spec"})


def resource_of(manifest: Manifest, name: str | None, namespace: str, *, validate: bool = True) -> dict[str, Any]:
    """The resource to create.

    Args:
        name: in place of ``metadata.name``; a spec alone needs one.
        namespace: where the manifest names none.
        validate: without, all but what is not even an object is left for the API server to check.

    Raises:
        InvalidManifest: with every problem.
    """
    title, document = _one(manifest, name)
    content = document.content
    if isinstance(content, dict):
        content = {"apiVersion": API_VERSION, "kind": KIND, **content}
        metadata = content.get("metadata")
        if metadata is None or isinstance(metadata, dict):
            named = {"name": name} if name is not None else {}
            content["metadata"] = {"namespace": namespace, **(metadata or {}), **named}
        document = replace(document, content=content)
    wanted = validate or not isinstance(content, dict)
    if wanted and (problems := problems_of(document)):
        raise InvalidManifest(title, problems)
    return dict(content)


def _one(manifest: Manifest, name: str | None) -> tuple[str, Document]:
    """A title for people, and the one LMFineTune."""
    if isinstance(manifest, LMFineTuneSpec):
        spec = manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return name or "the manifest", Document(1, {"spec": spec})
    if isinstance(manifest, Mapping):
        content = dict(manifest) if _TOP & set(manifest) else {"spec": dict(manifest)}
        return name or "the manifest", Document(1, content)
    if isinstance(manifest, Path) or ("\n" not in manifest and manifest.endswith(_ENDINGS)):
        path = Path(manifest)
        title, documents = str(path), list(read_documents(path))
    else:
        title, documents = "the manifest", list(read_text(manifest))
    ours = [document for document in documents if document.problems or not is_foreign(document.content)]
    for document in ours:
        if document.problems:
            raise InvalidManifest(title, problems_of(document))
    if len(ours) != 1:
        raise InvalidManifest(title, [Problem("", f"must contain exactly one {KIND}, not {len(ours)}")])
    return title, ours[0]
