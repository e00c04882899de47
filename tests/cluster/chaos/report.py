"""What a measurement found, as a table for people."""

from collections import Counter

from cluster.chaos.measure import Outcome, RunOutcome
from cluster.chaos.schedule import OUTAGES, Kind


def table(outcome: Outcome) -> str:
    """The whole report; its last line says whether anything was wrong."""
    plan, violations = outcome.plan, outcome.violations
    lines = [
        f"seed {plan.seed} · {sum(outcome.done.values())} of {plan.faults} faults · {outcome.seconds / 60:.1f} min",
        "",
    ]
    for kind in Kind:
        lasting = f", {plan.durations[kind]:g} s each" if kind in OUTAGES else ""
        lines.append(f"  {kind + lasting:<32}{outcome.done[kind]:>4}")
    lines += ["", f"  {'run':<14}{'task':<12}{'phase':<11}{'attempts':<50}{'repeated':>9}{'equal':>7}"]
    for run in outcome.runs:
        lines.append(
            f"  {run.name:<14}{run.task:<12}{run.status.get('phase', '–'):<11}{attempts(run):<50}"
            f"{run.repeated:>9}{'yes' if run.equal else 'NO':>7}"
        )
    done = sum(len(run.status.get("attempts", [])) for run in outcome.runs)
    repeated = sum(run.repeated for run in outcome.runs)
    lines += [
        "",
        f"  {len(outcome.runs)} runs of {plan.steps} steps, {done} attempts, {repeated} steps repeated "
        f"(a checkpoint every {plan.every})",
        f"  {outcome.checkpoints} checkpoints verified; {outcome.samples.get('cluster', 0)} looks at the cluster, "
        f"{outcome.samples.get('storage', 0)} at storage",
        "",
        *(f"  VIOLATION  {violation}" for violation in violations),
        *(line for run in outcome.runs if run.violations for line in details(run)),
        f"  {len(violations)} violations" if violations else "  all as undisturbed: no violation",
    ]
    return "\n".join(lines)


def details(run: RunOutcome) -> list[str]:
    """The attempts of a run that something was wrong with, and what its Jobs say."""
    told = [f"  {run.name}  {entry}" for entry in run.status.get("attempts", [])]
    return told + [f"  {run.name}  Job {job['metadata']['name']} {job.get('status', {})}" for job in run.jobs]


def attempts(run: RunOutcome) -> str:
    """How a run's attempts ended, counted."""
    counted = Counter(entry.get("reason", "open") for entry in run.status.get("attempts", []))
    return ", ".join(f"{number} {reason}" for reason, number in sorted(counted.items()))
