"""What a run is refused for the devices that it asks for, before anything is fetched for it."""

import pytest

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import Settings, resolve
from lmft_job.errors import InvalidError
from lmft_job.stages.check import refuse_undividable


def asking(parallelism: str, resources: dict[str, int], **training: str) -> Settings:
    return resolve(
        LMFineTuneSpec.parse(
            {
                "model": {"name": "gpt2"},
                "dataset": {"builtin": "PythonDocs"},
                "training": {"parallelism": parallelism, **training},
                "resources": resources,
            }
        )
    )


@pytest.mark.parametrize("resources", [{"nodes": 2}, {"gpusPerNode": 2}, {"nodes": 4, "gpusPerNode": 8}])
def test_what_cannot_be_divided_among_devices_is_refused_all_at_once(resources: dict[str, int]) -> None:
    with pytest.raises(InvalidError) as refused:
        refuse_undividable(asking("FSDP", resources, optimizer="Adafactor", precision="FP16"))

    assert "spec.training.optimizer: Adafactor" in str(refused.value)
    assert "spec.training.precision: " in str(refused.value)


@pytest.mark.parametrize(
    ("parallelism", "resources"), [("FSDP", {"gpusPerNode": 1}), ("DDP", {"nodes": 2}), ("Auto", {"gpusPerNode": 8})]
)
def test_one_device_holds_all_and_several_may_hold_copies(parallelism: str, resources: dict[str, int]) -> None:
    refuse_undividable(asking(parallelism, resources, optimizer="Adafactor", precision="FP16"))
