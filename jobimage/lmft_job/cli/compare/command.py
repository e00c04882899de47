"""``lmft compare``: read the reports, compare, print."""

import sys

from lmft_api.reasons import ExitCode
from lmft_api.text.shown import json_text, one_line
from lmft_api.wire.layout import PAGE
from lmft_api.wire.report import Report
from lmft_job.cli.compare.comparison import compare
from lmft_job.cli.compare.runs import read_report, titles
from lmft_job.cli.compare.view import as_json as plain
from lmft_job.cli.compare.view import render
from lmft_job.cli.forms import print_laid_out
from lmft_job.errors import InvalidError, JobError
from lmft_job.observers.terminal.spinner import waiting


def print_members(selector: str, namespace: str | None, context: str | None, *, as_json: bool) -> int:
    """Compare the runs of the cluster that have labels, without those that have no report; returns the exit code."""
    from lmft import Client, LMFineTuneError

    try:
        found = Client(namespace, context=context).list(selector=selector)
    except LMFineTuneError as error:
        print(one_line(str(error)), file=sys.stderr)
        return ExitCode.INVALID
    places = []
    for run in found:
        results = run.results
        if results is None or results.report_uri is None:
            print(one_line(f"{run.name} has no report yet"), file=sys.stderr)
        else:
            places.append(results.report_uri.removesuffix(f"/{PAGE}"))
    return print_comparison(places, as_json=as_json)


def print_comparison(places: list[str], *, as_json: bool) -> int:
    """Print what the runs have in common and where they differ; returns the exit code."""
    if len(places) < 2:
        print("name at least two runs", file=sys.stderr)
        return ExitCode.INVALID
    reports: list[Report] = []
    problems: list[str] = []
    with waiting("reading the reports"):
        for place in places:
            try:
                reports.append(read_report(place))
            except InvalidError as error:
                problems += error.problems
            except JobError as error:
                problems.append(f"{place}: {error}")
    if problems:
        for problem in problems:
            print(one_line(problem), file=sys.stderr)
        return ExitCode.INVALID
    found = compare(reports, titles(reports))
    if as_json:
        print(json_text(plain(found)))
    else:
        print_laid_out(render(found))
    return ExitCode.DONE
