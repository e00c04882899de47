"""Types that the settings are built from."""

import re
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, AliasGenerator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from lmft_api.schema.rules import amount
from lmft_api.schema.types import ApiModel, LabelValue, QualifiedName, Quantity

Seconds = Annotated[float, Field(ge=0, strict=False)]
Port = Annotated[int, Field(ge=1, le=65535)]
HttpAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
Labels = dict[QualifiedName, LabelValue]
Annotations = dict[QualifiedName, str]
Variable = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=253)]
GpuResource = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"
        r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        max_length=253,
    ),
]

GpuKind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./]*(=[-A-Za-z0-9_.]*)?$", max_length=380)]
"""A resource such as nvidia.com/gpu, or a node's label such as nvidia.com/gpu.product=Tesla-T4."""


def _spelled(name: str) -> str:
    """A field's name as spelled in the chart's values: acronyms at the end are capitals, as in ``userID``."""
    return re.sub(r"(?<=[a-z])(Url|Id)$", lambda found: found[0].upper(), to_camel(name))


class Section(ApiModel):
    """A section of the file: camelCase, unknown keys refused."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(
            alias=_spelled,
            # Charts of release 0.1 wrote userId, endpointUrl and documentationUrl.
            validation_alias=lambda name: AliasChoices(_spelled(name), to_camel(name)),
        )
    )


def _positive(quantity: str) -> str:
    if amount(quantity) <= 0:
        raise ValueError("must be more than 0, which Kubernetes reads as no limit; null sets none")
    return quantity


Positive = Annotated[Quantity, AfterValidator(_positive)]
