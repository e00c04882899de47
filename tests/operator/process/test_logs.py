"""The log: one JSON object a line, and nothing in it that a stranger can write at will."""

import io
import json
import logging

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from lmft_operator.domain.facts import Key
from lmft_operator.process import logs

LOGGER = logging.getLogger("aiohttp.server")


@pytest.fixture
def written():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("INFO")
    (handler,) = (found for found in root.handlers if isinstance(found.formatter, logs.JsonFormatter))
    stream = io.StringIO()
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = before


def test_a_request_that_is_no_http_is_not_logged_and_a_fault_of_ours_is(written):
    for problem in (BadHttpMessage("what a stranger sent"), KeyError("ours")):
        try:
            raise problem
        except (BadHttpMessage, KeyError):
            LOGGER.exception("Error handling request")
    (line,) = written.getvalue().splitlines()
    assert "KeyError: 'ours'" in json.loads(line)["traceback"]


def test_a_line_is_one_json_object_with_the_run_it_is_about(written):
    LOGGER.warning("line\nbreak \x1b[31m", **logs.about(Key("team-a", "eli5")))
    (line,) = written.getvalue().splitlines()
    assert "\x1b" not in line
    assert json.loads(line)["namespace"] == "team-a"
