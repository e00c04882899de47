"""Messages of a status."""

from lmft_api.reasons import Reason
from lmft_api.status import MAX_MESSAGE
from lmft_api.text.wording import sentence, shorten
from lmft_operator.settings import OperatorSettings


def linked(settings: OperatorSettings, reason: Reason, message: str) -> str:
    """The message with the address of the page that explains its reason, if one is configured."""
    if not settings.documentation_url:
        return message
    address = f"{settings.documentation_url}#{reason.value.lower()}"
    if message.endswith(f" See {address}"):
        return message
    return f"{sentence(shorten(message, MAX_MESSAGE - len(address) - 7))} See {address}"
