"""Logs as JSON, one object a line, with the namespace and name of the run where there is one."""

import json
import logging
import sys
import time
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

from lmft_operator.domain.facts import Key


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; namespace and name; the traceback as text."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        key: Key | None = getattr(record, "key", None)
        if key is None and isinstance(reference := getattr(record, "k8s_ref", None), dict):
            key = Key(str(reference.get("namespace")), str(reference.get("name")))
        if key is not None:
            line |= {"namespace": key.namespace, "name": key.name}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _of_ours(record: logging.LogRecord) -> bool:
    """Whether to keep a record. Malformed HTTP is not logged: it is answered with 400, and anyone could send it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def configure(level: str) -> None:
    """Send all logs to standard error as JSON; kopf's own from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter()
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(_of_ours)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def about(key: Key) -> dict[str, Any]:
    """``extra`` of a log call about a run."""
    return {"extra": {"key": key}}
