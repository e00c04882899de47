"""How long the training texts are, in a page."""

import re

import pytest
from support.report_samples import causal_report, classification_report

from lmft_api.wire.report import ConversationFigures, DatasetFigures, Report, RowExample, RowSegment, TextLengths
from lmft_job.report.charts import histogram
from lmft_job.report.page import render_page
from lmft_job.report.remarks import of_lengths

LENGTHS = {"minimum": 3, "median": 12.0, "mean": 20.4, "p95": 61.0, "maximum": 70}
CLASSES = [(8, 2), (16, 5), (32, 0), (64, 2), (128, 1)]
CHATS = {"max_length": 64, "train_trained_tokens": 5, "eval_trained_tokens": 1}


def figures(limit: int | None = 64, **more: object) -> DatasetFigures:
    lengths = TextLengths(**LENGTHS, limit=limit, longer=None if limit is None else 1, histogram=CLASSES)
    return DatasetFigures.model_validate(
        {"train_rows": 10, "eval_rows": 2, "train_tokens": 204, "lengths": lengths, **more}
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (figures(train_blocks=3), "are joined and cut into 3 blocks; 1 of 10 is longer than a block of 64 tokens."),
        (figures(), "1 of 10 is longer than the 64 tokens that the model takes, and cut there."),
        (
            figures(conversations=ConversationFigures(**CHATS, packed=True, packs=4)),
            "1 of 10 is longer than 64 tokens (maxLength). They share 4 packs of at most that.",
        ),
        (figures(conversations=ConversationFigures(**CHATS, packed=False)), "longer than 64 tokens (maxLength)."),
        (figures(None), "3 to 70 tokens long: 12 in the median, 20 on average, and 95 % have at most 61."),
    ],
)  # fmt: skip
def test_a_sentence_says_what_becomes_of_long_texts(data: DatasetFigures, said: str) -> None:
    assert of_lengths(data).endswith(said)


def test_a_bar_for_each_class_and_a_line_at_the_limit() -> None:
    drawn = histogram.of_lengths(figures(train_blocks=3), "a sentence")

    assert drawn is not None
    for size in re.findall(r"<svg.*?</svg>", drawn, re.DOTALL):
        bars = re.findall(r'class="bin" x="([\d.]+)".*?<title[^>]*>(.*?)</title>', size)
        (limit,) = re.findall(r'class="mark limit" x1="([\d.]+)"', size)
        assert [title for _, title in bars] == [
            "2 texts of 1 to 8 tokens",
            "5 texts of 9 to 16 tokens",
            "2 texts of 33 to 64 tokens",
            "1 text of 65 to 128 tokens",
        ]
        assert float(bars[2][0]) < float(limit) < float(bars[3][0])
        assert ">block, 64</text>" in size
        assert ">a sentence</desc>" in size


def test_reports_of_first_releases_are_drawn_from_what_they_have() -> None:
    chats = ConversationFigures(**CHATS, packed=False, histogram=[(32, 4), (64, 2), (None, 1)])

    drawn = histogram.of_lengths(figures(conversations=chats, lengths=None), "")

    assert drawn is not None
    assert "1 conversation of more than 64 tokens" in drawn
    assert histogram.of_lengths(classification_report().dataset, "") is None


@pytest.mark.parametrize("classes", [[], [(8, 0)], [(8, -5), (16, 0)], [(None, 3)], [(1, 2), (1, 2)], [(-3, 10**30)]])
def test_classes_of_strangers_make_a_page(classes: list[tuple[int | None, int]]) -> None:
    lengths = TextLengths(**LENGTHS, limit=0, longer=-1, histogram=classes * 200)
    report = causal_report()
    data = report.dataset.model_copy(update={"lengths": lengths})

    written = render_page(report.model_copy(update={"dataset": data}), [])

    assert len(written) < 60_000


def page_with(report: Report, *segments: tuple[str, bool]) -> str:
    """The page of a report with a training row."""
    row = RowExample(segments=[RowSegment(text=text, trained=trained) for text, trained in segments])
    data = report.dataset.model_copy(update={"examples": [row]})
    return render_page(report.model_copy(update={"dataset": data}), []).decode()


def test_a_training_row_is_shown_with_what_is_predicted_of_it() -> None:
    of_block = page_with(causal_report(), ("The <b>sky</b>\x1b", False))
    with_label = page_with(classification_report(), ("A quiet film → ", False), ("pos", True))

    assert ">The &lt;b&gt;sky&lt;/b&gt; </pre>" in of_block
    assert "every token of it is predicted from those before." in of_block
    assert ">A quiet film → <mark>pos</mark></pre>" in with_label
    assert "<mark>marked</mark> is what is predicted." in with_label
