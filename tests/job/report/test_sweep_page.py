"""The page of the sweep, which a sweep over some types alone reads and writes again."""

from sweep import table
from sweep.trial import Verdict


def test_a_page_read_and_written_again_is_the_same() -> None:
    listed = [
        ("CausalLM", "gpt2"),
        ("SequenceClassification", "gpt2"),
        ("MaskedLM", "xlm-roberta"),
        ("CausalLM", "new"),
    ]
    verdicts = {
        ("CausalLM", "gpt2"): Verdict("equal"),
        ("SequenceClassification", "gpt2"): Verdict("refused", "spec.task: it is\nnot | meant"),
        ("MaskedLM", "xlm-roberta"): Verdict("differs", "loss 1 and 2"),
    }

    page = table.page(verdicts, listed, "5.23.0")

    assert "4 pairs of task" in page
    assert "1 train, 1 are refused before the data is prepared, 1 do neither, and 1 have not been tried." in page
    assert "| gpt2 | trains |  | refused: it is not / meant |" in page
    assert table.page(table.read(page), listed, "5.23.0") == page
