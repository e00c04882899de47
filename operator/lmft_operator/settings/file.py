"""The settings file as a whole, and reading it."""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lmft_api.manifest.reader import read_yaml
from lmft_operator.settings.manifests import DefaultSettings, JobSettings, Policy
from lmft_operator.settings.process import (
    ApiSettings,
    ConnectionSettings,
    LeaderSettings,
    MetricsSettings,
    ProbeSettings,
    ProgressSettings,
    RetrySettings,
    WatchSettings,
)
from lmft_operator.settings.types import HttpAddress, Section

CONFIG_VARIABLE = "LMFT_OPERATOR_CONFIG"
DEFAULT_CONFIG = "/etc/lmft-operator/config.yaml"


class SettingsError(Exception):
    """The settings file cannot be used; the message names the file and every wrong field."""


class OperatorSettings(Section):
    """All settings."""

    defaults: DefaultSettings = DefaultSettings()
    """Defaults for what a manifest leaves out."""
    job: JobSettings = JobSettings()
    """Settings of the pods."""
    policy: Policy = Policy()
    """What manifests may name."""
    watch: WatchSettings = WatchSettings()
    """What the operator watches."""
    progress: ProgressSettings = ProgressSettings()
    """Progress reports of the pods."""
    retries: RetrySettings = RetrySettings()
    """Retries and waits."""
    api: ApiSettings = ApiSettings()
    """Client of the API server."""
    leader: LeaderSettings = LeaderSettings()
    """Leader election among several operators."""
    connections: ConnectionSettings = ConnectionSettings()
    """Connection limits of the ports."""
    probes: ProbeSettings = ProbeSettings()
    """Port of kubelet's probes."""
    metrics: MetricsSettings = MetricsSettings()
    """Port of the metrics."""
    documentation_url: HttpAddress | None = "https://github.com/lmfinetune/lmfinetune/blob/main/docs/troubleshooting.md"
    """Page that explains the reasons, with an anchor for each; messages that need action link to it. None: no links."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""


def load(path: str | None = None) -> OperatorSettings:
    """Read the settings file; a missing file gives the defaults.

    Raises:
        SettingsError: the file cannot be read or is not YAML, or a field is unknown or wrong; all of them are listed.
    """
    file = Path(path or os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    if not file.exists():
        if path or CONFIG_VARIABLE in os.environ:
            raise SettingsError(f"{file}: no such file")
        return OperatorSettings()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as problem:
        raise SettingsError(f"{file} cannot be read: {problem}") from problem
    return parse(text, str(file))


def parse(text: str, name: str = "settings") -> OperatorSettings:
    """Settings from YAML text; ``name`` is the file's name in messages."""
    try:
        body: Any = read_yaml(text)
    except ValueError as problem:
        raise SettingsError(f"{name} {problem}") from problem
    try:
        # Via JSON: strict types accept enums from JSON text, not from Python strings.
        return OperatorSettings.model_validate_json(json.dumps(body or {}))
    except ValidationError as problems:
        lines = [
            f"  {'.'.join(map(str, p['loc'])) or 'the file'}: {_worded(p['type'], p['msg'])}" for p in problems.errors()
        ]
        count = "1 wrong field" if len(lines) == 1 else f"{len(lines)} wrong fields"
        raise SettingsError(f"{name}: {count}\n" + "\n".join(lines)) from problems


def _worded(kind: str, message: str) -> str:
    return "unknown field" if kind == "extra_forbidden" else message
