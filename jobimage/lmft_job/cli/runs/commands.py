"""``lmft ls``, ``logs``, ``suspend``, ``resume``, ``cancel``, ``wait`` and ``open``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lmft_api import KIND, PLURAL
from lmft_api.text.shown import one_line, shown
from lmft_job.cli.forms import Form, Printed, print_laid_out

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Its namespace in the cluster.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Name = Annotated[str, typer.Argument(help="Name of the LMFineTune, or lmft/NAME.")]


def plain_name(name: str) -> str:
    """The name without the kind that kubectl's form puts before it: ``lmft/quickstart``."""
    kind, _, after = name.partition("/")
    return after if kind.partition(".")[0].lower() in (KIND.lower(), PLURAL, "lmft") else name


def _is_plugin() -> bool:
    """Whether kubectl has called it, as ``kubectl lmft``: then runs are those of the cluster."""
    return Path(sys.argv[0]).name == "kubectl-lmft"


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong with the cluster in one line, and end with exit code 2."""
    from lmft import LMFineTuneError

    try:
        yield
    except LMFineTuneError as error:
        typer.echo(shown(str(error)), err=True)
        raise typer.Exit(2) from error


def ls(
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Runs of all namespaces.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, such as lmfinetune.dev/sweep=eli5.")] = "",
    context: Context = None,
    form: Printed = Form.TEXT,
) -> None:
    """List runs: those in ./runs, or, with any of the options, those in the cluster."""
    from lmft_job.cli.runs import listing
    from lmft_job.observers.terminal.spinner import waiting

    if namespace or everywhere or selector or context or _is_plugin():
        from lmft import Client

        with _told(), waiting("asking the cluster"):
            client = Client(namespace, context=context)
            rows = listing.cluster_rows(client.list(selector=selector, everywhere=everywhere))
    else:
        rows = listing.local_rows()
    if form == Form.JSON:
        typer.echo(listing.as_json(rows))
    elif rows:
        wide = None if sys.stdout.isatty() else 200
        print_laid_out(listing.table(rows, namespaces=everywhere), width=wide)
    else:
        typer.echo("no runs here; -n NAMESPACE or -A lists those of a cluster", err=True)


def logs(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Lines from the end. Default: all.")] = None,
) -> None:
    """Print what the newest attempt of a run in the cluster says."""
    from lmft import Client

    with _told():
        for line in Client(namespace, context=context).logs(plain_name(name), follow=follow, tail=tail):
            typer.echo(shown(line))


def suspend(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Stop a run in the cluster: it saves a checkpoint and frees its GPU. Here, press Ctrl-C where it runs."""
    _set_suspended(name, namespace, context, suspended=True)


def resume(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Let a suspended run in the cluster continue from its checkpoint. Here, give the command of the run again."""
    _set_suspended(name, namespace, context, suspended=False)


def _set_suspended(name: str, namespace: str | None, context: str | None, *, suspended: bool) -> None:
    from lmft import Client

    with _told():
        client = Client(namespace, context=context)
        run = client.suspend(plain_name(name)) if suspended else client.resume(plain_name(name))
        typer.echo(f"{run.namespace}/{run.name} {'suspended' if suspended else 'resumed'}")


def cancel(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run of the cluster with its Jobs and pods; its checkpoints and results stay in storage."""
    from lmft import Client

    with _told():
        client = Client(namespace, context=context)
        run = client.get(plain_name(name))
        if not yes:
            typer.confirm(f"delete {KIND} {run.namespace}/{run.name}?", abort=True)
        client.delete(run)
        typer.echo(f"{run.namespace}/{run.name} deleted; what is in storage stays")


def wait(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most. Default: no limit.")] = None,
) -> None:
    """Wait until a run in the cluster has ended. Exit code 0: it succeeded; 1: it failed; 124: the time was over."""
    from lmft import Client, WaitTimeout

    with _told():
        try:
            run = Client(namespace, context=context).wait(plain_name(name), timeout=timeout, check=False)
        except WaitTimeout as error:
            typer.echo(f"{error.run.namespace}/{error.run.name} is {one_line(error.run.reason)}", err=True)
            raise typer.Exit(124) from None
        words = f": {run.message}" if run.message else ""
        typer.echo(one_line(f"{run.namespace}/{run.name} {run.reason}{words}"))
        if not run.succeeded and run.remedy:
            typer.echo(one_line(f"What to do: {run.remedy}"), err=True)
        raise typer.Exit(0 if run.succeeded else 1)


def open_page(
    place: Annotated[
        str, typer.Argument(help="A folder, an s3:// address, or a name: in ./runs, or with -n in the cluster.")
    ],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Open the report of a finished run in a browser."""
    from lmft_job.cli.runs.page import page_of, show
    from lmft_job.errors import JobError
    from lmft_job.observers.terminal.spinner import waiting

    if namespace or context or _is_plugin():
        from lmft import Client

        with _told(), waiting("asking the cluster"):
            results = Client(namespace, context=context).get(plain_name(place)).results
        if results is None or results.report_uri is None:
            typer.echo(f"{plain_name(place)} has no report yet", err=True)
            raise typer.Exit(2)
        place = results.report_uri
    try:
        with waiting("reading the report"):
            page, where = page_of(place)
    except JobError as error:
        typer.echo(one_line(str(error)), err=True)
        raise typer.Exit(2) from error
    typer.echo(one_line(where))
    if not show(page):
        typer.echo(f"there is no browser here; open {page}", err=True)
