"""Writes JSON schemas for kubeconform from Go modules that publish their API, so that linting needs no schema server.

Usage: schemas.py FOLDER. One file for each kind, ``<group>_<kind>_<version>.json``, closed against unknown fields.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KUBERNETES, CERT_MANAGER, PROMETHEUS = (
    "k8s.io/kubernetes",
    "github.com/cert-manager/cert-manager",
    "github.com/prometheus-operator/prometheus-operator",
)
NAMES_OR_TEXT = ("properties", "description", "default")
# What the API server also takes where its description says "string".
SPECIAL: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def module_folder(module: str) -> Path:
    """Folder of a module in Go's cache, fetched when it is not there, checked against go.sum."""
    output = subprocess.run(["go", "mod", "download", "-json", module], cwd=HERE, check=True, capture_output=True)
    return Path(json.loads(output.stdout)["Dir"])


def closed(schema: Any, definitions: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """The schema with references filled in and unknown fields refused; a type within itself is left open."""
    if isinstance(schema, list):
        return [closed(item, definitions, seen) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name in SPECIAL:
            return SPECIAL[name]
        return {} if name in seen else closed(definitions[name], definitions, (*seen, name))
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    result = {key: closed(value, definitions, seen) for key, value in schema.items() if key not in NAMES_OR_TEXT}
    if "properties" in schema:
        # Names of fields, not words of the schema language: a definition of schemas has fields such as "$ref".
        fields = schema["properties"].items()
        result["properties"] = {name: closed(field, definitions, seen) for name, field in fields}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    return result


def built_in(folder: Path) -> dict[str, Any]:
    """Schemas of Kubernetes' own kinds."""
    definitions = json.loads((folder / "api/openapi-spec/swagger.json").read_text())["definitions"]
    schemas = {}
    for definition in definitions.values():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            # DeleteOptions and its like carry every group; they are no objects that a chart could hold.
            if "metadata" in definition.get("properties", {}) and not kind["kind"].endswith("List"):
                group = kind["group"] or kind["version"]
                schemas[f"{group}_{kind['kind'].lower()}_{kind['version']}"] = closed(definition, definitions)
    return schemas


def custom(files: list[Path]) -> dict[str, Any]:
    """Schemas of CustomResourceDefinitions."""
    schemas = {}
    for document in (document for file in files for document in yaml.safe_load_all(file.read_text())):
        spec = document["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"], {})
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[f"{spec['group']}_{spec['names']['kind'].lower()}_{version['name']}"] = schema
    return schemas


def main() -> None:
    """Write the schemas of every kind that the chart could hold."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    folders = {module: module_folder(module) for module in (KUBERNETES, CERT_MANAGER, PROMETHEUS)}
    schemas = built_in(folders[KUBERNETES])
    schemas |= custom(
        [
            *(folders[CERT_MANAGER] / "deploy/crds").glob("cert-manager.io_*.yaml"),
            folders[PROMETHEUS] / "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            folders[PROMETHEUS] / "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
            HERE.parent / "lmfinetune/files/crd.yaml",
        ]
    )
    for name, schema in schemas.items():
        (target / f"{name}.json").write_text(json.dumps(schema))
    print(f"{len(schemas)} schemas in {target}")


if __name__ == "__main__":
    main()
