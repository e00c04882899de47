"""A kubeconfig for a stand-in of the API server."""

import json


def kubeconfig(server: str) -> str:
    """Its text: one context, in the namespace team-a."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team-a"}}],
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {}}],
        }
    )
