"""Losses of held-out rows: those of the logits, whether the model's own loss keeps them or they are computed again."""

from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import SMALL
from torch.nn.functional import cross_entropy
from transformers.loss.loss_utils import ForCausalLMLoss

from lmft_api.tasks import Task
from lmft_job.evaluation import likelihood
from lmft_job.evaluation.held_out import Arithmetic, evaluate_held_out
from lmft_job.evaluation.likelihood import RowLosses, recorded, row_losses

GPT2 = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 300}
MIXTRAL = {**SMALL, "num_key_value_heads": 2, "vocab_size": 300, "num_local_experts": 2, "output_router_logits": True}
MODELS: list[tuple[Task, str, dict[str, Any], bool]] = [
    (Task.CAUSAL_LM, "gpt2", GPT2, True),
    (Task.CAUSAL_LM, "mixtral", MIXTRAL, True),
    (Task.CAUSAL_LM, "bert", {**SMALL, "vocab_size": 300, "is_decoder": True}, True),
    (Task.MASKED_LM, "roberta", {**SMALL, "vocab_size": 300}, False),
]
FACTORIES = {Task.CAUSAL_LM: "AutoModelForCausalLM", Task.MASKED_LM: "AutoModelForMaskedLM"}


def batch_of(task: Task) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 300, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[1, 5:] = -100
    if task == Task.MASKED_LM:
        labels[:, torch.arange(12) % 3 > 0] = -100
        labels[2] = -100
    return {"input_ids": ids, "labels": labels}


def by_hand(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> list[float]:
    """In FP64, a target at a time."""
    shift = int(task == Task.CAUSAL_LM)
    return [
        sum(
            float(-torch.log_softmax(logits[row, at - shift].double(), -1)[labels[row, at]])
            for at in range(shift, labels.shape[1])
            if labels[row, at] != -100
        )
        for row in range(len(labels))
    ]


@pytest.mark.parametrize(("task", "kind", "given", "kept"), MODELS, ids=lambda value: str(value)[:12])
def test_rows_have_the_losses_of_their_logits(
    task: Task, kind: str, given: dict[str, Any], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **given)
    model = getattr(transformers, FACTORIES[task]).from_config(config).eval()
    batch = batch_of(task)
    plain, attributes = model(**batch), dict(model.__dict__)
    again: list[Any] = []
    monkeypatch.setattr(likelihood, "row_losses", lambda *given: again.append(given) or row_losses(*given))

    with torch.no_grad(), recorded(model, task) as rows:
        outputs = model(**batch)
        found = rows.of(outputs.logits, batch["labels"], task)

    assert found == pytest.approx(by_hand(plain.logits.detach(), batch["labels"], task), rel=1e-5)
    assert float(outputs.loss) == pytest.approx(float(plain.loss), rel=1e-6)
    assert bool(again) != kept
    assert dict(model.__dict__) == attributes
    assert row_losses(plain.logits, batch["labels"], task) == pytest.approx(found, rel=1e-5)


def test_figures_are_the_same_with_a_model_that_computes_its_own_loss() -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("gpt2", **GPT2))
    batch = batch_of(Task.CAUSAL_LM)
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]

    def measured() -> Any:
        return evaluate_held_out(
            model, rows, lambda some: {name: torch.stack([row[name] for row in some]) for name in batch},
            Task.CAUSAL_LM, batch_size=2, arithmetic=Arithmetic(torch.device("cpu")),
        )  # fmt: skip

    kept = measured()
    model.loss_function = lambda *given, **more: ForCausalLMLoss(*given, **more)
    own = measured()

    assert kept.figures.loss == pytest.approx(own.figures.loss, rel=1e-6)
    assert kept.units.losses.tolist() == pytest.approx(own.units.losses.tolist(), rel=1e-5)


def test_several_losses_of_one_pass_are_no_rows_losses() -> None:
    logits, labels = torch.randn(2, 4, 9), torch.randint(9, (2, 4))
    rows = RowLosses()
    rows.loss(logits, labels, 9)
    rows.loss(logits + 1, labels, 9)
    other = torch.randn(2, 4, 9)
    assert rows.of(other, labels, Task.CAUSAL_LM) == row_losses(other, labels, Task.CAUSAL_LM)
    # When a count is given, the loss is what transformers makes of it.
    counted = rows.loss(logits, labels, 9, num_items_in_batch=torch.tensor(3))
    assert counted == ForCausalLMLoss(logits, labels, 9, torch.tensor(3))
    summed = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    assert float(counted) == pytest.approx(float(summed) / 3)
