"""Reports as real runs leave them, for the tests of the page, the card and the console."""

import math
import random

from lmft_api.spec import Dataset, LMFineTuneSpec, Model, Sample, Tokenizer, Training
from lmft_api.spec.resolved import resolve
from lmft_api.tasks import Task
from lmft_api.wire.report import (
    CurvePoint,
    DatasetFigures,
    EvaluationRow,
    ModelSummary,
    Report,
    ReportProvenance,
    ResultFigures,
    ResumePoint,
    RowExample,
    RowSegment,
    SampleOutcome,
    TextLengths,
    TrainingFigures,
)

PROMPT = "Somatic hypermutation allows the immune system to"
BEFORE = (
    " be more efficient. The immune system is a complex system, and it is a system that is not the system of the "
    "system.\n\nThe first is the first of the first, and the second of the first is the first that the first of the"
)
AFTER = (
    " recognise a virus it has not seen before. The cells that make antibodies copy a part of their own DNA badly on "
    "purpose, so that every copy makes a slightly different antibody, and the ones that stick best get to divide."
)


def training_curve(steps: int, start: float, end: float, *, every: int = 10, seed: int = 7) -> list[CurvePoint]:
    """A loss that falls fast, then slowly, with the noise of small batches."""
    draw = random.Random(seed)
    points = []
    for step in range(every, steps + 1, every):
        share = step / steps
        trend = end + (start - end) * (0.55 * math.exp(-18 * share) + 0.45 * (1 - share) ** 1.4)
        points.append(CurvePoint(step=step, loss=trend + draw.gauss(0, 0.045 * (start - end) + 0.02)))
    return points


def stepwise(curve: list[CurvePoint]) -> list[CurvePoint]:
    """The same with what each step is logged with: a linear warm-up and decay, the gradient's norm, the speed."""
    last = curve[-1].step
    return [
        point.model_copy(
            update={
                "learning_rate": 2e-5 * min(point.step / (0.1 * last), (last - point.step) / (0.9 * last)),
                "gradient_norm": 0.6 + point.loss / 4,
                "tokens_per_second": 9_240.0 + point.step % 7,
            }
        )
        for point in curve
    ]


def causal_report() -> Report:
    """The tutorial's causal run, on a GPU, once resumed."""
    spec = LMFineTuneSpec(
        task=Task.CAUSAL_LM,
        model=Model(name="distilbert/distilgpt2"),
        dataset=Dataset(name="dany0407/eli5_category", split="train[:5000]", text_field="answers.text"),
        training=Training(epochs=3, per_device_batch_size=16),
        sample=Sample(prompts=[PROMPT]),
    )
    losses = [(1, 3.958), (2, 3.917), (3, 3.904)]
    return Report(
        name="eli5",
        namespace="team-a",
        attempt=2,
        finished="2026-11-20T14:03:11Z",
        task=Task.CAUSAL_LM,
        model=ModelSummary(
            name="distilbert/distilgpt2",
            base_model="distilbert/distilgpt2",
            architecture="GPT2LMHeadModel",
            parameters=81_912_576,
            detail="6 layers",
        ),
        device="NVIDIA H200",
        precision="BF16",
        results=ResultFigures(
            perplexity=math.exp(3.904),
            baseline_perplexity=62.30,
            eval_loss=3.904,
            baseline_eval_loss=math.log(62.30),
            trainer_eval_loss=3.9041,
            samples=[SampleOutcome(prompt=PROMPT, before=BEFORE, after=AFTER)],
            model_uri="s3://models/team-a/runs/eli5-1b9d6bcd/model",
            report_uri="s3://models/team-a/runs/eli5-1b9d6bcd/report.html",
        ),
        evaluations=[
            EvaluationRow(
                step=epoch * 580,
                epoch=float(epoch),
                train_loss=loss + 0.06,
                eval_loss=loss,
                perplexity=math.exp(loss),
            )
            for epoch, loss in losses
        ],
        dataset=DatasetFigures(
            name="dany0407/eli5_category, train[:5000]",
            train_rows=3_998,
            eval_rows=1_000,
            dropped_rows=2,
            train_blocks=9_271,
            eval_blocks=1_021,
            train_tokens=1_186_688,
            eval_tokens=130_688,
            dropped_tokens=143,
            lengths=TextLengths(
                minimum=3,
                median=188,
                mean=264.2,
                p95=741,
                maximum=4_023,
                limit=128,
                longer=2_480,
                histogram=[
                    (8, 31),
                    (16, 92),
                    (32, 204),
                    (64, 417),
                    (128, 774),
                    (256, 996),
                    (512, 901),
                    (1_024, 466),
                    (2_048, 104),
                    (4_096, 13),
                ],
            ),
            examples=[RowExample(segments=[RowSegment(text="Why is the sky blue? Sunlight reaches", trained=False)])],
            fingerprint="6f1c2c1a0d5be0f7",
        ),
        settings=resolve(spec).flat(),
        training=TrainingFigures(
            steps=1_740,
            total_steps=1_740,
            epochs=3.0,
            tokens=3_560_064,
            tokens_per_second=61_300.0,
            checkpoint_seconds=7.4,
            resumed_from_step=800,
            lost_steps=12,
            resumes=[ResumePoint(step=800, lost_steps=12, attempt=2)],
        ),
        timings={
            "load": 6.1,
            "tokenise": 4.2,
            "samples": 5.3,
            "baseline": 3.9,
            "train": 58.1,
            "evaluate": 11.7,
            "upload": 6.4,
        },
        peak_memory={"process": 3_435_973_836, "device": 9_234_179_686},
        provenance=ReportProvenance(
            versions={"lmfinetune": "0.1.0", "torch": "2.15.0", "transformers": "5.23.0", "datasets": "5.2.0"},
            seed=42,
            model_revision="2290a62682d06624634c1f46a6ad5be0f47f38aa",
            spec_hash="9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de",
            image="registry.example.com/lmfinetune/job:0.1.0",
        ),
    )


def causal_curve() -> list[CurvePoint]:
    """Training loss of the causal run."""
    return training_curve(1_740, 4.21, 3.93)


def demo_report() -> Report:
    """A model from a config on a laptop."""
    spec = LMFineTuneSpec(
        model=Model(
            from_config={"model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256},
            tokenizer=Tokenizer(train_vocab_size=8000),
        ),
        dataset=Dataset.model_validate_json('{"builtin": "PythonDocs"}'),
        training=Training(learning_rate="1e-3"),
        sample=Sample(prompts=["The import statement", "A class definition"]),
    )
    base = causal_report()
    return base.model_copy(
        update={
            "name": "quickstart",
            "dataset": base.dataset.model_copy(update={"name": "PythonDocs"}),
            "namespace": "default",
            "attempt": 1,
            "device": "CPU",
            "precision": "FP32",
            "model": ModelSummary(name="gpt2 (from config)", parameters=3_600_000, detail="4 layers"),
            "settings": resolve(spec).flat(),
            "spec": resolve(spec).named(),
            "training": TrainingFigures(steps=348, total_steps=348, epochs=3.0, tokens_per_second=9_240.0),
            "results": ResultFigures(
                perplexity=88.3,
                baseline_perplexity=7_912.0,
                eval_loss=4.481,
                baseline_eval_loss=8.976,
                samples=[
                    SampleOutcome(
                        prompt="The import statement",
                        before=" qe Unpack 4 lambdaset",
                        after=" is used to bind the name of the module in the local namespace",
                    ),
                    SampleOutcome(
                        prompt="A class definition", before=" ]] ord fi", after=" is an executable statement"
                    ),
                ],
                model_uri="runs/default/quickstart/model",
                report_uri="runs/default/quickstart/report.html",
            ),
            "evaluations": [
                EvaluationRow(step=116 * epoch, epoch=float(epoch), eval_loss=loss, perplexity=math.exp(loss))
                for epoch, loss in ((1, 5.358), (2, 4.72), (3, 4.481))
            ],
        }
    )


def classification_report() -> Report:
    """The quicktour's classifier."""
    spec = LMFineTuneSpec(
        task=Task.SEQUENCE_CLASSIFICATION,
        model=Model(name="distilbert/distilbert-base-uncased"),
        dataset=Dataset(name="rotten_tomatoes", eval_split="validation"),
        sample=Sample(prompts=["A quiet film that earns every minute."]),
    )
    return Report(
        name="reviews",
        task=Task.SEQUENCE_CLASSIFICATION,
        model=ModelSummary(name="distilbert/distilbert-base-uncased", base_model="distilbert/distilbert-base-uncased"),
        results=ResultFigures(
            eval_loss=0.3712,
            baseline_eval_loss=0.6958,
            accuracy=0.8433,
            baseline_accuracy=0.5,
            samples=[
                SampleOutcome(prompt="A quiet film that earns every minute.", before="neg (0.51)", after="pos (0.97)")
            ],
            model_uri="file:///srv/my%20models/reviews/model",
        ),
        evaluations=[
            EvaluationRow(step=1_067, epoch=1.0, train_loss=0.41, eval_loss=0.3801, accuracy=0.8311),
            EvaluationRow(step=2_134, epoch=2.0, train_loss=0.22, eval_loss=0.3712, accuracy=0.8433),
        ],
        dataset=DatasetFigures(
            name="rotten_tomatoes", train_rows=8_530, eval_rows=1_066, train_tokens=230_412, labels=["neg", "pos"]
        ),
        settings=resolve(spec).flat(),
        training=TrainingFigures(steps=2_134, total_steps=2_134, epochs=2.0),
        timings={"train": 5_000.0},
    )


def bare_report() -> Report:
    """The least that a report can hold."""
    return Report(
        name="bare",
        task=Task.MASKED_LM,
        model=ModelSummary(name="roberta (from config)"),
        results=ResultFigures(),
        dataset=DatasetFigures(train_rows=1, eval_rows=1, train_tokens=1),
        training=TrainingFigures(steps=1),
    )
