"""What a run is refused for the devices that it asks for, before anything is fetched for it."""

import pytest

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import Settings, resolve
from lmft_job.errors import InvalidError
from lmft_job.stages.check import refuse_divided_model


def asking(parallelism: str, **resources: int) -> Settings:
    return resolve(
        LMFineTuneSpec.parse(
            {
                "model": {"name": "gpt2"},
                "dataset": {"builtin": "PythonDocs"},
                "training": {"parallelism": parallelism},
                "resources": resources,
            }
        )
    )


@pytest.mark.parametrize("resources", [{"nodes": 2}, {"gpusPerNode": 2}, {"nodes": 4, "gpusPerNode": 8}])
def test_a_model_that_is_to_be_divided_among_devices_is_refused(resources: dict[str, int]) -> None:
    with pytest.raises(InvalidError, match=r"spec\.training\.parallelism: FSDP is not supported yet; DDP, and Auto"):
        refuse_divided_model(asking("FSDP", **resources))


@pytest.mark.parametrize(
    ("parallelism", "resources"), [("FSDP", {"gpusPerNode": 1}), ("DDP", {"nodes": 2}), ("Auto", {"gpusPerNode": 8})]
)
def test_one_device_holds_all_and_several_may_hold_copies(parallelism: str, resources: dict[str, int]) -> None:
    refuse_divided_model(asking(parallelism, **resources))
