"""``spec`` of an LMFineTune: what to train, on what, how, and where the result goes."""

from lmft_api.spec.conversations import BadRows, ChatTemplate, ChatTemplateName, LongRows, Packing, TrainOn
from lmft_api.spec.dataset import Builtin, DataFormat, Dataset
from lmft_api.spec.fields import LMFineTuneSpec, Preparation, ResumeFrom
from lmft_api.spec.model import HubTokenRef, Model, Tokenizer
from lmft_api.spec.output import Mlflow, Output, PushToHub, ReportTo, Sample, Wandb
from lmft_api.spec.training import (
    ALL_LINEAR,
    Adapter,
    AdapterType,
    CheckpointPolicy,
    Compile,
    Evaluation,
    Optimizer,
    Parallelism,
    Precision,
    Quantization,
    Scheduler,
    Training,
    Weights,
)

__all__ = [
    "ALL_LINEAR",
    "Adapter",
    "AdapterType",
    "BadRows",
    "Builtin",
    "ChatTemplate",
    "ChatTemplateName",
    "CheckpointPolicy",
    "Compile",
    "DataFormat",
    "Dataset",
    "Evaluation",
    "HubTokenRef",
    "LMFineTuneSpec",
    "LongRows",
    "Mlflow",
    "Model",
    "Optimizer",
    "Output",
    "Packing",
    "Parallelism",
    "Precision",
    "Preparation",
    "PushToHub",
    "Quantization",
    "ReportTo",
    "ResumeFrom",
    "Sample",
    "Scheduler",
    "Tokenizer",
    "TrainOn",
    "Training",
    "Wandb",
    "Weights",
]
