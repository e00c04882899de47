"""The model card."""

import re

import pytest
import yaml
from support.report_samples import PROMPT, bare_report, causal_report, classification_report, demo_report

from lmft_api.wire.report import Report, SampleOutcome
from lmft_job.report.card import metadata, render_card
from lmft_job.report.tables import provenance_rows


def front_matter(card: str) -> dict[str, object]:
    parts = card.split("---\n")
    assert parts[0] == ""
    loaded = yaml.safe_load(parts[1])
    assert isinstance(loaded, dict)
    return loaded


def test_the_front_matter_names_base_model_data_and_figures() -> None:
    front = front_matter(render_card(causal_report()))

    assert front["base_model"] == "distilbert/distilgpt2"
    assert front["datasets"] == ["dany0407/eli5_category"]
    assert front["pipeline_tag"] == "text-generation"
    assert front["metrics"] == ["perplexity", "loss"]
    result = front["model-index"][0]["results"][0]  # type: ignore[index]
    assert result["dataset"]["type"] == "dany0407/eli5_category"
    assert {metric["type"] for metric in result["metrics"]} == {"perplexity", "loss"}
    assert front["base_model_relation"] == "finetune"
    assert front["widget"] == [{"text": PROMPT}]


def test_a_licence_that_nobody_stated_is_not_guessed() -> None:
    assert all("license" not in metadata(report) for report in (causal_report(), demo_report(), bare_report()))


def test_a_model_from_a_config_on_own_data_names_no_hub_ids() -> None:
    front = front_matter(render_card(demo_report()))

    assert "base_model" not in front
    assert "datasets" not in front


def test_the_hubs_own_client_reads_the_card() -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(render_card(classification_report()))

    assert card.data.base_model == "distilbert/distilbert-base-uncased"
    assert card.data.eval_results is not None
    assert {(result.metric_type, result.metric_value) for result in card.data.eval_results} == {
        ("accuracy", 0.8433),
        ("loss", 0.3712),
    }


def test_the_card_tells_figures_samples_use_and_limits() -> None:
    card = render_card(causal_report())

    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings == [
        "Figures", "Samples", "How to use", "Training data", "Training", "Limitations", "Provenance",
    ]  # fmt: skip
    assert "| Perplexity | 62.30 | 49.60 |" in card
    assert "| step | epoch | training loss | loss | perplexity |" in card
    assert len(re.findall(r"^\| [\d,]+ \| [123] \| ", card, re.MULTILINE)) == 3
    assert "recognise a virus" in card
    assert "pipeline('text-generation', model='path/to/this/folder')" in card
    assert "attention can reach from one text into the one before it" in card
    assert "| `training.learningRate` | 2e-5 |" in card


def test_the_card_tells_what_the_page_does_but_not_where_the_run_lay() -> None:
    resumed = causal_report().provenance.model_copy(update={"resumed_from": "s3://models/team/runs/before/model"})
    report = causal_report().model_copy(update={"provenance": resumed})

    card, rows = render_card(report), dict(provenance_rows(report))

    assert {"Base model", "Fingerprint of the prepared data", "Versions"} <= rows.keys()
    kept = [name for name in rows if f"| {name} |" in card]
    assert [name for name in rows if name not in kept] == ["Run", "Finished", "Resumed from", "Model", "Report"]
    assert not re.search(r"s3://|file:///", card)


@pytest.mark.parametrize("report", [causal_report(), demo_report(), classification_report(), bare_report()])
def test_every_fence_is_closed_and_every_table_even(report: Report) -> None:
    card = render_card(report)

    assert len(re.findall(r"^```", card, re.MULTILINE)) % 2 == 0
    for table in re.findall(r"(?:^\|.*\|\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_text_of_others_stays_text() -> None:
    hostile = "a | b <script>x</script> [click](http://x) `code`\n---\n# heading"
    report = causal_report().model_copy(
        update={
            "name": hostile,
            "device": hostile,
            "model": causal_report().model.model_copy(update={"base_model": hostile}),
            "results": causal_report().results.model_copy(
                update={"samples": [SampleOutcome(prompt=hostile, before="```\n# out", after="\x1b[31m````\n# out")]}
            ),
        }
    )

    card = render_card(report)

    outside = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", card.split("---\n", 2)[2], flags=re.MULTILINE | re.DOTALL)
    assert "base_model" not in front_matter(card)
    assert "<script>" not in outside
    assert "[click](" not in outside
    assert "# out" not in outside
    assert outside.count("\n# ") == 1
    assert "\x1b" not in card
