"""Remarks on the data besides its figures: the same on the console, in the page and on the card."""

from lmft_api.wire.report import DatasetFigures
from lmft_job.report.formatting import count, quantity


def data_remarks(data: DatasetFigures) -> list[str]:
    """What was done to the data, or is wrong with it, that no figure shows; empty if nothing."""
    said = []
    if data.look_alike:
        said.append(
            f"The files were read as plain text, one row per line, but look like {data.look_alike}, and all of that "
            "markup is trained on. If this is not intended, set spec.dataset.format to their format, or extract the "
            "text first."
        )
    if data.eval_rows_in_train:
        said.append(
            f"{count(data.eval_rows_in_train)} of the {quantity(data.eval_rows, 'held-out texts')} also appear in the "
            "training data, word for word: on new texts the figures may be worse."
        )
    cut = [
        f"{count(rows)} of {count(of)} {what}"
        for rows, of, what in (
            (data.train_cut_rows, data.train_rows, "training texts"),
            (data.eval_cut_rows, data.eval_rows, "held-out texts"),
        )
        if rows
    ]
    if cut:
        said.append(
            f"{' and '.join(cut)} are longer than the {count(data.longest_input or 0)} tokens that the model takes, "
            "and were cut there."
        )
    if data.vocabulary and data.wanted_vocabulary and data.vocabulary < data.wanted_vocabulary:
        said.append(
            f"The tokenizer has {count(data.vocabulary)} tokens, not the {count(data.wanted_vocabulary)} that "
            "spec.model.tokenizer.trainVocabSize asks for: the training texts have no more pieces that occur twice."
        )
    if data.vocabulary and data.wanted_vocabulary and data.vocabulary > data.wanted_vocabulary:
        said.append(
            f"The tokenizer has {count(data.vocabulary)} tokens, more than the {count(data.wanted_vocabulary)} that "
            "spec.model.tokenizer.trainVocabSize asks for: every byte needs one, and so do special tokens."
        )
    return said
