"""Remarks on the data besides its figures: the same on the console, in the page and on the card."""

from lmft_api.wire.report import ConversationFigures, DatasetFigures
from lmft_job.report.formatting import count, percent, quantity


def data_remarks(data: DatasetFigures) -> list[str]:
    """What was done to the data, or is wrong with it, that no figure shows; empty if nothing."""
    said = []
    if data.look_alike:
        said.append(
            f"The files were read as plain text, one row per line, but look like {data.look_alike}, and all of that "
            "markup is trained on. If this is not intended, set spec.dataset.format to their format, or extract the "
            "text first."
        )
    if data.conversations is not None:
        said += _of_conversations(data, data.conversations)
    if data.train_targets is not None:
        said.append(
            "Documents are isolated: attention does not cross from one to the next within a block, positions begin "
            "again with each, and the first token of each is not predicted. The perplexity is another figure than that "
            "of blocks without isolation."
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


def of_lengths(data: DatasetFigures) -> str:
    """How long the training texts are, and what becomes of those beyond the limit; empty if it is not known."""
    lengths = data.lengths
    if lengths is None:
        return ""
    word = "conversation" if data.conversations is not None else "text"
    said = (
        f"A training {word} is {count(lengths.minimum)} to {count(lengths.maximum)} tokens long: "
        f"{count(lengths.median)} in the median, {count(lengths.mean)} on average, and 95 % have at most "
        f"{count(lengths.p95)}."
    )
    if lengths.limit is None or lengths.longer is None:
        return said
    texts = sum(number for _, number in lengths.histogram)
    longer = f"{count(lengths.longer)} of {count(texts)} {'is' if lengths.longer == 1 else 'are'} longer than"
    limit = quantity(lengths.limit, "tokens")
    if data.train_blocks is not None:
        return (
            f"{said} They are joined and cut into {quantity(data.train_blocks, 'blocks')}; {longer} a block of {limit}."
        )
    if data.conversations is None:
        return f"{said} {longer} the {limit} that the model takes{', and cut there' if lengths.longer else ''}."
    chats = data.conversations
    packed = f" They share {quantity(chats.packs, 'packs')} of at most that." if chats.packs is not None else ""
    return f"{said} {longer} {limit} (maxLength).{packed}"


def _of_conversations(data: DatasetFigures, chats: ConversationFigures) -> list[str]:
    """What was trained on, and which conversations were left out or cut."""
    tokens = data.train_tokens + (data.eval_tokens or 0)
    trained = chats.train_trained_tokens + chats.eval_trained_tokens
    said = [
        f"Loss and perplexity are those of the trained tokens, {percent(trained / max(1, tokens))} of all: the "
        "assistant's answers with their end tokens, unless trainOn or the messages say otherwise."
    ]
    if not chats.kept_apart:
        said.append("The model does not keep conversations apart that share a row, so each is a padded row by itself.")
    causes = [f"{count(number)} ({cause})" for cause, number in chats.bad_rows.items()]
    longest = quantity(chats.max_length, "tokens")
    for number, what in (
        (sum(chats.bad_rows.values()), f"left out as wrong: {', '.join(causes)}"),
        (chats.long_rows_dropped, f"left out as longer than {longest} (maxLength)"),
        (chats.truncated_rows, f"cut to {longest} (maxLength)"),
        (chats.cut_answers, "cut within their only answer, whose end is not trained on"),
        (chats.untrained_rows, "left out because none of their tokens is trained on"),
    ):
        if number:
            said.append(f"{quantity(number, 'conversations')} {what}.")
    return said
