import pytest

from lmft_job.distributed.world import ALONE, World


def variables(rank: int, size: int, local_rank: int, local_size: int, node: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size),
        "GROUP_RANK": str(node),
    }


def test_without_torchruns_variables_a_process_is_alone():
    assert World.from_environment({"HOME": "/"}) == ALONE
    assert ALONE.alone
    assert ALONE.main
    assert ALONE.leads_node


def test_torchruns_variables_say_which_process_this_is():
    first = World.from_environment(variables(2, 4, 0, 2, 1))

    assert first == World(rank=2, size=4, local_rank=0, local_size=2, node=1, nodes=2)
    assert first.leads_node
    assert not first.main
    assert not first.alone


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"RANK": None}, "RANK: not set"),
        ({"LOCAL_RANK": None, "GROUP_RANK": None}, "LOCAL_RANK, GROUP_RANK: not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not a number"),
        ({"RANK": "4"}, "contradict"),
        ({"WORLD_SIZE": "3"}, "contradict"),
        ({"LOCAL_WORLD_SIZE": "0"}, "contradict"),
        ({"GROUP_RANK": "0"}, "contradict"),
    ],
)
def test_variables_that_do_not_fit_together_are_named(changed, named):
    environ = variables(2, 4, 0, 2, 1) | changed
    with pytest.raises(ValueError, match=named):
        World.from_environment({name: value for name, value in environ.items() if value is not None})
