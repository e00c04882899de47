"""The commands of ``lmft``."""

import shlex
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from lmft_api import __version__
from lmft_api.manifest.changes import Change
from lmft_api.text.shown import one_line, shown
from lmft_job.cli.forms import Form, Printed, console
from lmft_job.cli.manifest import Wishes
from lmft_job.cli.runs import commands as runs_commands
from lmft_job.process.signals import Interrupt

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune a language model from a manifest: on this machine, or in a cluster with kubectl apply.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Output = Annotated[
    str | None,
    typer.Option(help="Where results go: a folder, or s3://bucket/prefix. Default: spec.output.uri, else ./runs."),
]
Manifest = Annotated[Path, typer.Argument(help="A file with one LMFineTune; - is standard input.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the spec: training.learningRate=5e-5. Repeatable.",
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the run instead of metadata.name.")]


Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep", metavar="FIELD=VALUE,…", help="Run every combination of these values, and compare. Repeatable."
    ),
]


def _wishes(sets: list[str] | None, name: str | None = None) -> Wishes:
    """Changes to the manifest; what is wrong with the words ends the command."""
    try:
        return Wishes.parse(sets or (), name)
    except ValueError as error:
        typer.echo(f"--set {one_line(str(error))}", err=True)
        raise typer.Exit(2) from None


def _axes(sweep: list[str]) -> list[list[Change]]:
    """The values of a sweep; what is wrong with the words ends the command."""
    from lmft_job.cli.sweep.plan import parse_sweep

    try:
        return parse_sweep(sweep)
    except ValueError as error:
        typer.echo(f"--sweep {one_line(str(error))}", err=True)
        raise typer.Exit(2) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""


def _quieten() -> None:
    """Before the libraries are imported: some speak while they are."""
    from lmft_job.attempt.context import quiet_libraries

    quiet_libraries()


def _waiting() -> AbstractContextManager[object]:
    from lmft_job.observers.terminal.spinner import waiting

    return waiting("loading libraries")


@app.command()
def run(
    entry: typer.Context,
    manifest: Manifest,
    sets: Sets = None,
    name: Name = None,
    sweep: Sweeps = None,
    output: Output = None,
    overwrite: Annotated[bool, typer.Option(help="Start from scratch if a run of this name exists.")] = False,
    allow_user_code: Annotated[
        bool, typer.Option(help="Allow the manifest's training.callbacks and training.trainerClass to run.")
    ] = False,
    allow_remote_code: Annotated[
        bool, typer.Option(help="Allow the code of a model's repository to run (model.trustRemoteCode).")
    ] = False,
    form: Annotated[Form, typer.Option("-o", "--format", help="What a sweep prints at its end.")] = Form.TEXT,
) -> None:
    """Run a manifest on this machine, or every combination of a sweep. Run it again to resume after a stop."""
    from lmft_job.cli.run import LocalOptions, run_manifest

    options = LocalOptions(output, overwrite, allow_user_code, allow_remote_code, _again(), _wishes(sets, name))
    if sweep:
        from lmft_job.cli.sweep.command import run_sweep

        code = run_sweep(manifest, _axes(sweep), options, entry.ensure_object(Interrupt), as_json=form == Form.JSON)
        raise typer.Exit(code)
    raise typer.Exit(run_manifest(manifest, options, entry.ensure_object(Interrupt)))


@app.command()
def sweep(
    manifest: Manifest,
    sweep: Annotated[list[str], typer.Option("--sweep", metavar="FIELD=VALUE,…", help="Values to try. Repeatable.")],
    sets: Sets = None,
    name: Name = None,
) -> None:
    """Print a manifest for every combination: lmft sweep M --sweep training.seed=1,2 | kubectl apply -f -."""
    from lmft_job.cli.sweep.manifests import print_sweep

    raise typer.Exit(print_sweep(manifest, _axes(sweep), _wishes(sets, name)))


def _again() -> str:
    """The command that resumes the run, quoted for the shell."""
    from lmft_job.cli.run import typed_program

    return shlex.join([*typed_program(), *(word for word in sys.argv[1:] if word != "--overwrite")])


@app.command()
def demo(entry: typer.Context, output: Output = None) -> None:
    """Train a small model on Python's own language reference; needs no network. Takes a few minutes."""
    from lmft_job.cli.run import LocalOptions, run_demo

    raise typer.Exit(run_demo(LocalOptions(output, again=_again()), entry.ensure_object(Interrupt)))


@app.command()
def validate(
    manifests: Annotated[list[Path], typer.Argument(help="Files with manifests; - is standard input.")],
    data: Annotated[
        bool, typer.Option("--data", help="Read and check the data too, as a run does before it trains.")
    ] = False,
    form: Printed = Form.TEXT,
) -> None:
    """List every problem of every document, with its line and field path."""
    from lmft_job.cli.validate import report_problems

    code = report_problems(manifests, as_json=form == Form.JSON)
    if data and not code:
        _quieten()
        with _waiting():
            from lmft_job.cli.preview import check_data

        code = max(check_data(manifest) for manifest in manifests)
    raise typer.Exit(code)


@app.command()
def preview(
    manifest: Manifest,
    rows: Annotated[int, typer.Option(min=0, max=1000, help="Training rows to print.")] = 3,
    sets: Sets = None,
    form: Printed = Form.TEXT,
) -> None:
    """Show the data as the model sees it: rows, what of them is trained on, and lengths. Loads no weights."""
    _quieten()
    with _waiting():
        from lmft_job.cli.preview import preview

    raise typer.Exit(preview(manifest, rows, _wishes(sets), as_json=form == Form.JSON))


@app.command()
def init(
    data: Annotated[list[str], typer.Argument(help="Files or a folder of this machine, or s3:// addresses.")],
    task: Annotated[str | None, typer.Option(help="What to learn. Default: what the data suggests.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to start from: a hub id, s3:// or file:// address.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: from the file's name.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="File to write. Default: NAME.yaml.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what the data suggests.")] = False,
) -> None:
    """Write a manifest for your data: its format, its columns and a task are found in its first rows."""
    from lmft_job.cli.init.command import Wishes, write_manifest

    raise typer.Exit(write_manifest(data, Wishes(task, model, name, file), ask=not yes and sys.stdin.isatty()))


@app.command()
def schema() -> None:
    """Print the manifest's JSON Schema, with which an editor completes fields and marks mistakes."""
    import json

    from lmft_api.generate.editor_schema import editor_schema

    typer.echo(json.dumps(editor_schema(), indent=1))


@app.command()
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Two or more: folders, s3:// addresses, or names in ./runs.")
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", help="Runs of the cluster: lmfinetune.dev/sweep=eli5.")
    ] = None,
    namespace: runs_commands.Namespace = None,
    context: runs_commands.Context = None,
    form: Printed = Form.TEXT,
) -> None:
    """Finished runs beside each other: figures with their uncertainty, settings that differ, and samples."""
    from lmft_job.cli.compare.command import print_comparison, print_members

    if selector is not None:
        raise typer.Exit(print_members(selector, namespace, context, as_json=form == Form.JSON))
    raise typer.Exit(print_comparison(runs or [], as_json=form == Form.JSON))


@app.command()
def estimate(
    manifest: Manifest,
    gpu_memory: Annotated[
        str | None,
        typer.Option(help="Memory of the GPU, such as 80Gi. Default: spec.resources.gpuMemory, else the GPU's here."),
    ] = None,
    allow_remote_code: Annotated[
        bool, typer.Option(help="Allow the code of a model's repository to run (model.trustRemoteCode).")
    ] = False,
    sets: Sets = None,
    form: Printed = Form.TEXT,
) -> None:
    """Estimate a run's memory, steps and time from its manifest, without its weights and data."""
    from lmft_job.cli.estimate import report_estimate

    code = report_estimate(
        manifest, gpu_memory, _wishes(sets), allow_remote_code=allow_remote_code, as_json=form == Form.JSON
    )
    raise typer.Exit(code)


@app.command("report-to")
def report_to(
    place: Annotated[str, typer.Argument(help="A run's folder, its s3:// address, or a name in ./runs.")],
    mlflow: Annotated[str | None, typer.Option(metavar="ADDRESS", help="MLflow server to send to.")] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Weights & Biases: https://api.wandb.ai, or your own server.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option(help="Also of a run that ended early, and that no attempt resumes.")
    ] = False,
) -> None:
    """Send a run's metrics to trackers after its end: what they lack of them, with your own keys."""
    from lmft_job.cli.report_to import report_to as send

    raise typer.Exit(send(place, mlflow, wandb, unfinished=unfinished))


@app.command()
def watch(
    name: Annotated[str, typer.Argument(help="Name of the LMFineTune, or lmft/NAME.")],
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Its namespace.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Follow a run in the cluster until it ends."""
    from lmft import LMFineTuneError
    from lmft_job.cli.watch.follow import follow

    try:
        succeeded = follow(runs_commands.plain_name(name), namespace, context, console())
    except LMFineTuneError as error:
        typer.echo(shown(str(error)), err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        typer.echo("Stopped watching; the run continues in the cluster.", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(0 if succeeded else 1)


@app.command()
def ui(
    place: Annotated[
        str, typer.Argument(help="Folder or s3:// address that runs were written to (spec.output.uri).")
    ] = "runs",
    namespace: runs_commands.Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Runs of all namespaces.")] = False,
    context: runs_commands.Context = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1. Default: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Show runs in a browser: a list, each run while it trains and after, and comparisons. Read-only, here alone."""
    from lmft_job.cli.ui.command import serve_cluster, serve_place

    if namespace or everywhere or context:
        raise typer.Exit(serve_cluster(namespace, context, port, everywhere=everywhere, browser=browser))
    raise typer.Exit(serve_place(place, port, browser=browser))


for _command in (
    runs_commands.ls,
    runs_commands.logs,
    runs_commands.suspend,
    runs_commands.resume,
    runs_commands.cancel,
    runs_commands.wait,
):
    app.command()(_command)
app.command("open")(runs_commands.open_page)
