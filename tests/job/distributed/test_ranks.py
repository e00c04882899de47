"""Several ranks train as one process does: the same rows in a step, the same losses, the same figures."""

import functools
from pathlib import Path
from typing import Any

import pytest
from support.comparing import conversations, losses, report, sure
from support.forked import complete, toy_spec
from support.ranks import complete_ranks
from support.tiny_bases import save_base


def padded(home: Path, **sections: Any) -> dict[str, Any]:
    return conversations(home, dataset={"packing": "None"}, **sections)


def adapter(home: Path, *, training: dict[str, Any]) -> dict[str, Any]:
    """A LoRA adapter on a small model."""
    spec = toy_spec(home, training={**training, "learningRate": "1e-2", "adapter": {"rank": 4, "dropout": "0"}})
    spec["model"] = {"name": save_base(home / "base", "llama")}
    return spec


def isolated(home: Path, **sections: Any) -> dict[str, Any]:
    """Documents that do not see each other: targets differ by block."""
    return sure(home, task="CausalLM", dataset={"isolateDocuments": True}, **sections)


KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "causal": (functools.partial(sure, task="CausalLM"), (2, 3)),
    "masked": (functools.partial(sure, task="MaskedLM"), (3,)),
    "classes": (functools.partial(sure, task="SequenceClassification"), (2, 3)),
    "padded conversations": (padded, (2,)),
    "packed conversations": (conversations, (3,)),
    "isolated documents": (isolated, (3,)),
    "adapter": (adapter, (2,)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_train_as_one_process_does(kind: str, tmp_path: Path) -> None:
    # given a run of one process, whose rows do not divide evenly
    make, sizes = KINDS[kind]
    complete(tmp_path, make(tmp_path, training={"perDeviceBatchSize": 12}), name="one")
    expected = report(tmp_path, "one")
    for size in sizes:
        # when several ranks share its steps, in two passes each
        shared = make(tmp_path, training={"perDeviceBatchSize": 12 // size // 2, "gradientAccumulationSteps": 2})
        name = f"on-{size}"
        complete_ranks(tmp_path, shared, size, name=name)
        # then every step has the same loss, and the figures are the same
        assert list(losses(tmp_path, name)) == pytest.approx(list(losses(tmp_path, "one")), abs=1e-5)
        found = report(tmp_path, name)
        assert found["training"]["tokens"] == expected["training"]["tokens"]
        assert found["results"].get("accuracy") == expected["results"].get("accuracy")
        # the same weights give the same figure, to the rounding of a product; trained ones have drifted by a step's
        for figure, within in (("baselineEvalLoss", 1e-6), ("evalLoss", 1e-5)):
            assert found["results"][figure] == pytest.approx(expected["results"][figure], abs=within)
