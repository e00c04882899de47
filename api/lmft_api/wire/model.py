"""How the types of ``report.json`` are written and read."""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


class ReportModel(BaseModel):
    """Base: camelCase outside, snake_case inside; unknown keys of a later version are passed over."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore", frozen=True,
        use_attribute_docstrings=True, ser_json_inf_nan="strings", protected_namespaces=(),
    )  # fmt: skip

    @model_validator(mode="after")
    def _countable(self) -> Self:
        """Whole numbers count things; a stranger's report may have one that no float holds."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, int) and abs(value) >= 1 << 63:
                raise ValueError(f"{to_camel(name)} is larger than any count")
        return self
