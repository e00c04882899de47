"""Settings of the operator: one YAML file, mounted from the chart's ConfigMap, parsed once at the start.

The path is ``LMFT_OPERATOR_CONFIG``, by default ``/etc/lmft-operator/config.yaml``. Keys are camelCase; an unknown key
or a wrong type stops the operator with the field's path, so that a typing error never becomes a silent default.
"""

from lmft_operator.settings.file import OperatorSettings, SettingsError, load, parse
from lmft_operator.settings.manifests import JobSettings, PolicyRules
from lmft_operator.settings.process import ApiSettings, LeaderSettings, ProgressSettings
from lmft_operator.settings.types import Section

__all__ = [
    "ApiSettings",
    "JobSettings",
    "LeaderSettings",
    "OperatorSettings",
    "PolicyRules",
    "ProgressSettings",
    "Section",
    "SettingsError",
    "load",
    "parse",
]
