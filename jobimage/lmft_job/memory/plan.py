"""What a device is to do in a step, as far as its memory depends on it."""

from dataclasses import dataclass

from lmft_api.spec import Optimizer, Precision
from lmft_api.spec.resolved import AdapterSettings, Settings
from lmft_api.tasks import Task
from lmft_job.training.batch import NO_CHECKPOINTING, Batch, Checkpointing, planned_checkpointing

LONGEST_ASSUMED = 512
"""Tokens of the longest padded row before the data is read, where the model takes as many."""


@dataclass(frozen=True)
class Plan:
    """What a device is to do.

    Attributes:
        task: decides head and labels.
        length: tokens of a row.
        batch: rows in a forward pass, and passes in a step.
        masked_padding: whether rows come with a mask, of their padding as classifiers' do, or of other documents.
        optimizer: its state and temporary results differ.
        weight_decay: SGD on a GPU copies the gradients to add it.
        precision: of matrix products: FP32, BF16 or FP16.
        checkpointing: layers whose activations are computed again in the backward pass.
        on_gpu: its kernels differ from a CPU's.
        adapter: matrices that are trained beside the frozen weights; None to train all weights.
        pretrained: whether the weights are a pretrained model's, to which an adapter can be put.
        quantized: whether the frozen weights are packed in 4 bits.
        fused_loss: whether the loss is computed without logits (:mod:`lmft_job.training.acceleration.fused_loss`).
    """

    task: Task
    length: int
    batch: Batch
    masked_padding: bool = False
    optimizer: Optimizer = Optimizer.ADAMW
    weight_decay: float = 0.0
    precision: Precision = Precision.FP32
    checkpointing: Checkpointing = NO_CHECKPOINTING
    on_gpu: bool = False
    fused_loss: bool = False
    adapter: AdapterSettings | None = None
    quantized: bool = False
    pretrained: bool = False


def plan_of(settings: Settings, length: int) -> Plan:
    """The plan of a run.

    Args:
        settings: of the run.
        length: tokens of its longest row.
    """
    training, on_gpu = settings.training, settings.gpus > 0
    precision = training.precision
    if precision == Precision.AUTO:
        precision = Precision.BF16 if on_gpu else Precision.FP32
    return Plan(
        task=settings.task,
        length=length,
        batch=Batch(training.per_device_batch_size, training.gradient_accumulation_steps),
        masked_padding=settings.dataset.block_size is None or bool(settings.dataset.isolate_documents),
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        precision=precision,
        checkpointing=planned_checkpointing(training.gradient_checkpointing),
        on_gpu=on_gpu,
        adapter=training.adapter,
        quantized=training.quantization is not None,
        pretrained=settings.model.name is not None,
    )
