"""Types of ``report.json``: every figure of a run, with names and units, as machines read it.

Keys are camelCase. A non-finite number is written as the text "NaN" or "Infinity", so that the file is valid JSON and
reads back unchanged.
"""

from typing import Any

from pydantic import Field

from lmft_api.tasks import Task
from lmft_api.wire.model import ReportModel
from lmft_api.wire.versions import FIRST_FORMAT


class ModelSummary(ReportModel):
    """The model that was trained."""

    name: str
    """For people: ``distilbert/distilgpt2``, or ``gpt2 (from config)``."""
    base_model: str | None = None
    """Hub id or address that the weights came from; None when trained from scratch."""
    architecture: str | None = None
    """Class of the model, such as GPT2LMHeadModel."""
    parameters: int | None = None
    """Number of parameters; without those of an adapter."""
    trained_parameters: int | None = None
    """Number of parameters that were trained, if they are an adapter's; absent where all were."""
    detail: str | None = None
    """More for people, such as ``4 layers``."""


class SampleOutcome(ReportModel):
    """One prompt, answered before and after training."""

    prompt: str
    """The prompt as given."""
    before: str | None = None
    """The answer of the model before training (for CausalLM the continuation, without the prompt)."""
    after: str | None = None
    """The answer of the trained model."""


class ResultFigures(ReportModel):
    """What came out, on the held-out data, before (baseline) and after."""

    perplexity: float | None = None
    """exp(evalLoss); absent for SequenceClassification."""
    baseline_perplexity: float | None = None
    """The same blocks before training."""
    eval_loss: float | None = None
    """Mean loss over the held-out targets, each weighing the same, in nats."""
    baseline_eval_loss: float | None = None
    """The same before training."""
    trainer_eval_loss: float | None = None
    """What Trainer's own evaluation calls ``eval_loss``: batches weighted by rows; with ``training.trainerClass`` the
    loss that this class computes, which is what was trained on."""
    accuracy: float | None = None
    """Share of held-out rows labelled right, 0 to 1 (SequenceClassification)."""
    baseline_accuracy: float | None = None
    """The same before training."""
    perplexity_standard_error: float | None = None
    """Standard error of the perplexity over the held-out blocks: the perplexity times that of evalLoss."""
    baseline_perplexity_standard_error: float | None = None
    """The same before training."""
    eval_loss_standard_error: float | None = None
    """Standard error of evalLoss over the held-out blocks (SequenceClassification: rows), in nats."""
    baseline_eval_loss_standard_error: float | None = None
    """The same before training."""
    eval_loss_change_standard_error: float | None = None
    """Standard error of the change of evalLoss since before training, compared block by block, or row by row."""
    accuracy_standard_error: float | None = None
    """Standard error of the accuracy over the held-out rows."""
    baseline_accuracy_standard_error: float | None = None
    """The same before training."""
    accuracy_change_standard_error: float | None = None
    """Standard error of the change of the accuracy since before training, compared row by row."""
    samples: list[SampleOutcome] = []
    """Prompts of the manifest, in its order."""
    model_uri: str | None = Field(default=None, alias="modelURI")
    """Folder of the model; the adapter's where that was not merged."""
    adapter_uri: str | None = Field(default=None, alias="adapterURI")
    """Folder of the adapter that was trained."""
    report_uri: str | None = Field(default=None, alias="reportURI")
    """The page."""


class AdapterFigures(ReportModel):
    """Held-out losses of an adapter, in nats per target, and what was published of it."""

    merged: bool = False
    """Whether the base model with the adapter merged into its weights was published."""
    quantized: bool = False
    """Whether the base model was in 4 bits (NF4) while the adapter was trained."""
    base: str | None = None
    """Base model as adapter_config.json names it: hub id, or address of a folder."""
    base_revision: str | None = None
    """Its commit on the hub."""
    base_dtype: str = "float32"
    """Type of the base model's own weights, and of the merged ones."""
    adapter_loss: float | None = None
    """Of the adapter on the base model that it was trained on; in 4 bits if that was quantized."""
    base_loss: float | None = None
    """Of the adapter on the base model's own weights; measured if it was trained on quantized ones."""
    merged_loss: float | None = None
    """Of the merged weights, in the type in which they are published."""
    serving: list[str] = []
    """What serving the adapter with vLLM needs, and what of it vLLM does not take."""


class EvaluationRow(ReportModel):
    """One evaluation on the held-out data."""

    step: int
    """Optimiser steps done."""
    epoch: float
    """Epochs done."""
    train_loss: float | None = None
    """Training loss at that step: the mean since the last log."""
    eval_loss: float
    """Mean loss over the held-out targets, in nats."""
    perplexity: float | None = None
    """exp(evalLoss)."""
    accuracy: float | None = None
    """Share labelled right, 0 to 1."""
    eval_loss_standard_error: float | None = None
    """Standard error of evalLoss over the held-out blocks or rows, in nats."""
    accuracy_standard_error: float | None = None
    """Standard error of the accuracy over the held-out rows."""

    @property
    def perplexity_standard_error(self) -> float | None:
        """Standard error of the perplexity: the perplexity times that of the loss."""
        if self.perplexity is None or self.eval_loss_standard_error is None:
            return None
        return self.perplexity * self.eval_loss_standard_error


class TextLengths(ReportModel):
    """Lengths of the kept texts, in tokens."""

    minimum: int
    """Shortest."""
    median: float
    """Half are shorter."""
    mean: float
    """Average."""
    p95: float
    """95 % are shorter."""
    maximum: int
    """Longest."""
    limit: int | None = None
    """Tokens of a block, or at which rows are cut; absent where there is no limit."""
    longer: int | None = None
    """Texts that are longer than that."""
    histogram: list[tuple[int | None, int]] = []
    """Texts by length: the longest of each class in tokens, none for all above, and how many."""


class RowSegment(ReportModel):
    """A run of tokens of a row."""

    text: str
    """As the model sees it, special tokens included."""
    trained: bool
    """Whether its tokens carry loss; in blocks all do, and none is marked."""


class RowExample(ReportModel):
    """A training row as the model sees it, cut where it is long."""

    segments: list[RowSegment]
    """All of it, in order."""


class ConversationFigures(ReportModel):
    """Conversations in numbers."""

    max_length: int
    """Most tokens of a row, and of a pack."""
    packed: bool
    """Whether conversations share rows in training."""
    packs: int | None = None
    """Packs in an epoch; absent where each conversation is a row."""
    kept_apart: bool = True
    """Whether the model keeps conversations apart that share a row; where it does not, they are not packed."""
    train_trained_tokens: int
    """Tokens that carry loss, in one epoch."""
    eval_trained_tokens: int
    """Tokens held out that carry loss, over which the figures are."""
    bad_rows: dict[str, int] = {}
    """Rows left out because they are no conversations, by what is wrong."""
    long_rows_dropped: int = 0
    """Conversations left out because they are longer than maxLength."""
    truncated_rows: int = 0
    """Conversations that were cut to maxLength."""
    cut_answers: int = 0
    """Of these, those cut within their only answer, whose end is not trained on."""
    untrained_rows: int = 0
    """Conversations left out because none of their tokens is trained on."""
    histogram: list[tuple[int | None, int]] = []
    """Conversations by length, as first releases wrote it; now that of the dataset's lengths."""
    examples: list[RowExample] = []
    """The first training rows."""

    @property
    def dropped(self) -> int:
        """Rows left out, for whatever reason."""
        return sum(self.bad_rows.values()) + self.long_rows_dropped + self.untrained_rows


class DatasetFigures(ReportModel):
    """The data in numbers."""

    name: str | None = None
    """For people: hub id, files or the builtin's name."""
    train_rows: int
    """Rows trained on."""
    eval_rows: int
    """Rows held out."""
    dropped_rows: int = 0
    """Rows without text or label, left out."""
    train_blocks: int | None = None
    """Blocks trained on; absent for SequenceClassification."""
    eval_blocks: int | None = None
    """Blocks held out; absent for SequenceClassification."""
    train_tokens: int
    """Tokens trained on in one epoch."""
    eval_tokens: int | None = None
    """Tokens held out."""
    train_targets: int | None = None
    """Tokens predicted in one epoch, where documents are isolated: all but the first of each in a block."""
    eval_targets: int | None = None
    """Tokens held out that are predicted, where documents are isolated."""
    dropped_tokens: int | None = None
    """Tokens of the remainders that filled no block."""
    lengths: TextLengths | None = None
    """Lengths of the training texts, before they are cut."""
    train_cut_rows: int | None = None
    """Training texts longer than the model takes, which were cut (SequenceClassification)."""
    eval_cut_rows: int | None = None
    """Held-out texts that were cut."""
    longest_input: int | None = None
    """Tokens at which they were cut."""
    eval_rows_in_train: int | None = None
    """Held-out texts that stand in the training data too, word for word."""
    look_alike: str | None = None
    """What the files look like that were read as plain text, where that is something else."""
    vocabulary: int | None = None
    """Tokens of the tokenizer that was trained; absent where it was given."""
    wanted_vocabulary: int | None = None
    """Tokens that spec.model.tokenizer.trainVocabSize asked for."""
    labels: list[str] | None = None
    """Label names (SequenceClassification)."""
    conversations: ConversationFigures | None = None
    """What only conversations have."""
    examples: list[RowExample] = []
    """The first training row, other than of conversations."""
    fingerprint: str | None = None
    """Fingerprint of the prepared data."""


class ResumePoint(ReportModel):
    """One start from a checkpoint."""

    step: int
    """Step of the checkpoint."""
    lost_steps: int | None = None
    """Steps done before the interruption that had to be repeated."""
    attempt: int | None = None
    """Number of the attempt that resumed."""


class TrainingFigures(ReportModel):
    """How the training went."""

    steps: int
    """Optimiser steps done."""
    total_steps: int | None = None
    """Optimiser steps planned; more than steps after an early stop."""
    epochs: float | None = None
    """Epochs done."""
    tokens: int | None = None
    """Tokens seen, over all epochs."""
    tokens_per_second: float | None = None
    """Throughput of training, without evaluation and checkpoints."""
    checkpoint_seconds: float | None = None
    """Seconds that training waited for its checkpoints: for writing or copying them, and for the upload before."""
    resumed_from_step: int | None = None
    """Step that the last attempt started from; None when it started afresh."""
    lost_steps: int | None = None
    """Steps that the last attempt repeated."""
    resumes: list[ResumePoint] = []
    """Every start from a checkpoint that is known, oldest first."""
    adjustments: list[str] = []
    """What the job adjusted in order to continue, such as the batch size after running out of memory."""


class ReportProvenance(ReportModel):
    """What is needed to get the same again."""

    versions: dict[str, str] = {}
    """Library to version."""
    seed: int | None = None
    """Seed of split, masks, order and samples."""
    model_revision: str | None = None
    """Commit of the model on the hub."""
    dataset_revision: str | None = None
    """Commit of the data set on the hub."""
    dataset_fingerprint: str | None = None
    """Fingerprint of the prepared data."""
    spec_hash: str | None = None
    """SHA-256 of the spec without its mutable fields."""
    image: str | None = None
    """Image of the job."""
    git: str | None = None
    """Commit of this software, where it runs from a checkout."""
    resumed_from: str | None = None
    """Model of the run that spec.resumeFrom names."""


class Report(ReportModel):
    """All that is known of a finished run."""

    format: int = FIRST_FORMAT
    """Version of this format; a higher one has changed what older readers know."""
    name: str
    """Name of the run."""
    namespace: str = "default"
    """Its namespace."""
    attempt: int = 1
    """Number of the attempt that finished it."""
    finished: str | None = None
    """When, RFC 3339 in UTC."""
    task: Task
    """What the model learned."""
    model: ModelSummary
    """The model."""
    device: str = "CPU"
    """For people: ``CPU`` or ``NVIDIA H200``."""
    precision: str = "FP32"
    """Arithmetic of training: FP32, BF16 or FP16; weights are FP32 always."""
    acceleration: list[str] = []
    """How a GPU computed it, such as ``layers compiled``; empty on a CPU."""
    evaluation_dtype: str = "float32"
    """Arithmetic of the evaluations."""
    saved_dtype: str = "float32"
    """Type of the saved weights."""
    results: ResultFigures
    """Figures and samples."""
    evaluations: list[EvaluationRow] = []
    """Evaluations during training, oldest first; the baseline is in results."""
    dataset: DatasetFigures
    """The data."""
    settings: dict[str, Any] = {}
    """All settings as resolved: dotted name to value, see lmft_api.spec.resolved.Settings.flat."""
    spec: dict[str, Any] = {}
    """The same settings as a manifest names and nests them: ``spec.training.learningRate``."""
    training: TrainingFigures
    """The training."""
    adapter: AdapterFigures | None = None
    """The adapter; absent where all weights were trained."""
    warnings: list[str] = []
    """What people must know before they use the model."""
    timings: dict[str, float] = {}
    """Seconds by phase, in the order of the phases."""
    peak_memory: dict[str, int] = {}
    """Most bytes that the last attempt held: ``process``, its resident memory; ``device``, tensors on its GPU."""
    provenance: ReportProvenance = ReportProvenance()
    """Where it came from."""
    redactions: int = 0
    """How many times what is a secret, or looks like one, was replaced in what the job said until then."""

    def to_json(self) -> bytes:
        """``report.json``: UTF-8, indented, without what is not known."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Report":
        """Read ``report.json``; raises pydantic.ValidationError when it is not one."""
        return cls.model_validate_json(data)


class CurvePoint(ReportModel):
    """A training step."""

    step: int
    """Optimiser steps done."""
    loss: float
    """Mean training loss since the last log, in nats; NaN is allowed and leaves a gap in the chart."""
    learning_rate: float | None = None
    """With which the step was made."""
    gradient_norm: float | None = None
    """Before clipping."""
    tokens_per_second: float | None = None
    """Smoothed."""
