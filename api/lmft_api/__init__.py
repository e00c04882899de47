"""The contract between people, the operator and the job: types, messages, reasons, exit codes.

Import from the submodules; this package itself imports nothing, so that ``import lmft_api`` costs nothing.
"""

__version__ = "0.1.0"

GROUP = "lmfinetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LMFineTune"
PLURAL = "lmfinetunes"
