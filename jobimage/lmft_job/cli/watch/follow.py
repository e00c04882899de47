"""``lmft watch``: follow a run in the cluster until it ends, and show it meanwhile."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from lmft import Client, Event, LMFineTuneError, Run
from lmft.display.history import History
from lmft.display.text import line
from lmft_job.cli.watch.view import closing, picture

LAST_EVENT_SECONDS = 3.0
"""The operator posts the final Event beside the final status: how long to wait for whichever is later."""
EVENT_PAUSE_SECONDS = 0.2
NO_EVENTS = "NoEvents"


def follow(name: str, namespace: str | None, context: str | None, console: Console) -> bool:
    """Show a run until it ends; returns whether it succeeded.

    After a lost connection the run is read again and followed further.

    Raises:
        LMFineTuneError: no cluster, no such run (any more), or no permission to see it.
    """
    client = Client(namespace, context=context)

    def say(words: str) -> None:
        console.print(words, soft_wrap=True, markup=False, highlight=False, style="yellow")

    history, last, seen_going, run = History(), "", False, None
    with Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else nullcontext() as live:
        for run in client.watch(name, on_lost=say):
            history.add(run.status)
            if live is not None:
                events = _events_with(run.reason, client, run) if run.ended and seen_going else _events(client, run)
                live.update(picture(name, run.status, history, events, console.width), refresh=True)
            elif (text := line(name, run.status)) != last:
                console.print(text, soft_wrap=True, markup=False, highlight=False)
                last = text
            seen_going = True
    for left in closing(run.status) if run is not None and not console.is_terminal else ():
        console.print(left, soft_wrap=True)
    return run is not None and run.succeeded


def _events_with(reason: str, client: Client, run: Run) -> Sequence[Event]:
    """The Events about the run once one of them has this reason, or after a bounded time."""
    until = time.monotonic() + LAST_EVENT_SECONDS
    while True:
        events = _events(client, run)
        if any(event.reason in (reason, NO_EVENTS) for event in events) or time.monotonic() > until:
            return events
        time.sleep(EVENT_PAUSE_SECONDS)


def _events(client: Client, run: Run) -> Sequence[Event]:
    """The Events about the run, oldest first; one that says so if they cannot be read, since the run matters more."""
    try:
        return client.events(run)
    except LMFineTuneError as error:
        return [Event(datetime.now(UTC).isoformat(), "Warning", NO_EVENTS, f"Events cannot be read: {error}")]
