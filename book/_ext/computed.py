"""The parts of pages that the build computes: layer reference, findings, status, counts of verdicts.

A page asks for a part with a comment line, ``% computed: layers``; the text is computed each time the book is built.
"""

import contextlib
import inspect
import os
import platform
import re
import runpy
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import speed
from builder import FRONT, agreement, execution, front_table, only_published, verdict_table

import aliasing
from aliasing import chapters, models, studies
from aliasing.chapters import statistic
from aliasing.metrics import count_flops
from aliasing.profiles import PROFILES
from aliasing.records import Store, code_version, home

PAGES = ["diagnose", "extend", "figures", "findings", "index", "layers", "rerun", "status"]
PACKAGES = ["aliasing", "torch", "torchvision", "numpy", "pandas", "papermill", "jupyter-book", "sphinx-book-theme"]
# Assumed in the plan of full scale, not measured: the peak rate of an H100 in bfloat16 without sparsity, and the share
# of it that a training uses. Images to train on: nine tenths of ImageNet's, and CamVid's.
PEAK, UTILISATION = 989e12, (0.2, 0.4)
IMAGES = {"folder": 1_153_050, "camvid": 367}


def rooms(book):
    """The chain of imports, as the package states it."""
    stated = inspect.cleandoc(aliasing.__doc__).splitlines()
    return ["```text", *(line.strip() for line in stated if line.startswith("    ")), "```"]


def layers(book):
    """One section per class: the names it answers to, then its documentation."""
    from aliasing.layers import CATALOGUE

    names = {}
    for name, entry in CATALOGUE.items():
        names.setdefault(entry.layer, []).append(name)
    lines = ["## Names", "", "| name | what it does | strides | source | class |", "|---|---|---|---|---|"]
    for name, entry in CATALOGUE.items():
        link = f"[{entry.layer.__name__}](#layer-{entry.layer.__name__.lower()})"
        strides = f"{min(entry.strides)} to {max(entry.strides)}" if len(entry.strides) > 1 else str(entry.strides[0])
        lines.append(f"| `{name}` | {entry.description} | {strides} | {entry.source} | {link} |")
    for layer, answers_to in names.items():
        lines += ["", f"(layer-{layer.__name__.lower()})=", f"## {layer.__name__}", ""]
        lines += ["Names: " + ", ".join(f"`{name}`" for name in answers_to) + ".", ""]
        lines += ["```{eval-rst}", f".. autoclass:: {layer.__module__}.{layer.__qualname__}", "```"]
    return lines


def markdown(frame, corner):
    """A table of strings; ``corner`` is the heading above the names of the rows."""
    lines = [f"| {corner} | " + " | ".join(frame.columns) + " |", "|---" * (len(frame.columns) + 1) + "|"]
    return lines + [
        f"| {name} | " + " | ".join(row) + " |" for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]


def promises(book):
    """Every layer against the contract, and the same for the layers of other packages."""
    sys.path.insert(0, str(home()))
    from benchmarks.promises import ours, peers_table, table

    return [
        *markdown(table(ours()).rename(index="`{}`".format), "layer"),
        "",
        "The same calls on what others offer, made when this page was built or, where a package was not installed,",
        "on the date in the row:",
        "",
        *markdown(peers_table(home() / "data/peers.json"), "peer"),
    ]


def diagnosis(book):
    """What the example of the page on diagnosing finds: its table, and the sites of its networks."""
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place
        try:
            with contextlib.redirect_stdout(None):
                found = runpy.run_path(str(book / "diagnose_example.py"))["found"]
        finally:
            tempfile.tempdir = None
    sites = {
        f"{portrait.network}, `{site.name}` ({site.module})": {
            "alias energy": f"{100 * site.alias_energy.value:.1f} %",
            "in front of filters": f"{100 * site.at_risk.value:.1f} %",
            "alias error": f"{100 * site.alias_error.value:.1f} %",
            "maximum-sampling bias": f"{100 * site.max_bias.value:.1f} %",
        }
        for portrait in found.portraits
        for site in portrait.sites
    }
    return [
        *markdown(found.table().drop(index="weights"), "measure"),
        "",
        "Where samples are dropped:",
        "",
        *markdown(pd.DataFrame.from_dict(sites, orient="index"), "network, site (module)"),
    ]


def profile_of(book):
    """The profile that the notebooks of this book were executed with."""
    found = {execution(path)["profile"] for path in (book / "notebooks").glob("*.ipynb")} - {None}
    return found.pop() if len(found) == 1 else "laptop"


@cache
def decided(profile):
    """All findings on all records; those of the smoke profile, which decide nothing, only in a book made with it."""
    return studies.findings(profile="smoke" if profile == "smoke" else None)


def verdicts(book):
    """How many claims of each chapter got which verdict."""
    return verdict_table(decided(profile_of(book)), "notebooks/{study}.ipynb#findings")


def findings(book):
    """Every finding of every study: claim, source, and what each profile says."""
    table = decided(profile_of(book))
    lines = []
    for study in studies.STUDIES.values():
        lines += [f"## {study.title}", "", f"[The chapter](notebooks/{study.chapter}.ipynb). {study.source}.", ""]
        for finding in study.findings:
            rows = table[table["finding"] == finding.id]
            known = rows[rows.groupby("profile")["outcome"].transform(lambda outcomes: (outcomes != "not run").any())]
            lines += [f"### {finding.id}", "", finding.claim, ""]
            lines += [f"*Source:* {finding.source}. *Published:* {finding.published}.", ""]
            lines += decision(known) if len(known) else ["Not run in any profile of this book.", ""]
    return lines


def figures(book):
    """A table per paper: what it shows, and where a chapter shows it or why none does."""
    lines = []
    for paper, rows in pd.read_csv(home() / "data/published/figures.csv").fillna("").groupby("paper", sort=False):
        lines += [f"## {studies.get(paper).source}", "", "| in the paper | in the chapter | remark |", "|---|---|---|"]
        for row in rows.itertuples():
            anchor = re.sub(r"[^\w -]", "", row.where.lower()).replace(" ", "-")
            link = f"[{row.where}](notebooks/{paper}.ipynb#{anchor})" if row.where else "not there"
            lines.append(f"| {row.item} | {link} | {row.why} |")
        lines.append("")
    return lines


def decision(rows):
    """The verdict of each profile, and below it what was measured."""
    lines = []
    for profile, own in rows.groupby("profile", sort=False):
        note = f" ({own.note.iloc[0]})" if own.note.iloc[0] else ""
        lines.append(f"* **{own.verdict.iloc[0]}** in profile `{profile}`{note}")
        for row in own.itertuples():
            outcome = "" if row.outcome == "not run" else f", {row.outcome}"
            lines.append(f"  * {row.statistic}: {statistic(row)}{outcome} (rule: {row.rule})")
    return [*lines, ""]


def runs(book):
    """The profile and the stamp of each notebook of this book."""
    lines = ["| notebook | profile | stamp |", "|---|---|---|"]
    for path in sorted((book / "notebooks").glob("*.ipynb")):
        known = execution(path)
        lines.append(f"| [{path.stem}](notebooks/{path.name}) | `{known['profile']}` | `{known['stamp']}` |")
    return lines


def anew(book):
    """In a book whose networks were all trained for it: how far its verdicts are the published ones."""
    made = [execution(path) for path in sorted((book / "notebooks").glob("*.ipynb"))]
    if not any(known.get("fresh") for known in made):
        return []
    return ["## Trained anew", "", *agreement(Store(published=Path(os.devnull)), only_published()), ""]


def records(book):
    """What the records cost: networks, hours of training and measuring per kind of device, images seen in training."""
    store = Store()
    lines = [
        "| study | profile | on record | training (h) | measuring (h) | on | million images |",
        "|---|---|--:|--:|--:|---|--:|",
    ]
    for row in studies.status_of().itertuples():
        if not row.done:
            continue
        jobs = studies.get(row.study).jobs(row.profile)
        records = [store.load(job.run) for job in jobs]
        spent = pd.DataFrame(
            {"trained": key == "training", "hours": origin["seconds"] / 3600, "device": origin["device"]}
            for record in records
            for key, origin in record.provenance.items()
        )
        seen = sum(
            job.run.recipe.epochs * record.measurements["training"].get("images", 0)
            for job, record in zip(jobs, records, strict=True)
            if "training" in record.measurements
        )
        hours = spent.groupby("trained")["hours"].sum()
        kinds = spent["device"].str.partition(" (")[0].unique()
        lines.append(
            f"| {row.study} | `{row.profile}` | {row.done} of {row.planned} | {hours.get(True, 0):.2f} "
            f"| {hours.get(False, 0):.2f} | {', '.join(kinds)} | {seen / 1e6:.1f} |"
        )
    return lines


def time_to_accuracy(book):
    """How long the plain networks of the comparison trained, and how accurate they became."""
    lines = [
        "| profile | network | data | seconds of training | images per second | on test pictures | device |",
        "|---|---|---|--:|--:|---|---|",
    ]
    for profile in PROFILES:
        epochs = {job.run.id: job.run.recipe.epochs for job in studies.get("comparison").jobs(profile)}
        networks = chapters.on_record("comparison", profile, empty=True)
        for name, plain in networks[networks["layer"] == "subsample"].groupby("network", sort=False):
            first, seconds = plain.iloc[0], plain["training.seconds"].mean()
            rate = epochs[first["id"]] * first["training.images"] / seconds
            lines.append(
                f"| `{profile}` | {name} | {first['training.data']} | {seconds:.0f} | {rate:,.0f} | {first['plain']} "
                f"| {first['device']} |"
            )
    return lines


def versions(book):
    """What the book was built with."""
    rows = [("Python", platform.python_version()), *((package, version(package)) for package in PACKAGES)]
    return [
        f"This book was built from version `{code_version()}` of the code, on {platform.system()} "
        f"({platform.machine()}), with:",
        "",
        "| package | version |",
        "|---|---|",
        *(f"| {name} | {number} |" for name, number in rows),
    ]


def full_scale(book):
    """What training the ``cluster`` profile would take, per architecture: 3 F N E operations each."""
    low, high = (PEAK * share * 3600 for share in UTILISATION)
    trainings = {}
    for job in (job for study in studies.STUDIES.values() for job in study.jobs("cluster")):
        trainings.setdefault(job.run.network["name"], {})[job.run.id] = job.run
    lines = [
        "| network | trainings | forward pass of the plain one | all trainings | GPU-hours |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, runs in trainings.items():
        size = (240, 180) if name.startswith("unet") else (224, 224)
        forward = count_flops(models.create(name, num_classes=1000), size)
        total = sum(3 * forward * run.recipe.epochs * IMAGES.get(run.dataset["name"], 0) for run in runs.values())
        total += sum(3 * forward * run.recipe.epochs * run.dataset.get("count", 0) for run in runs.values())
        lines.append(
            f"| `{name}` | {len(runs)} | {forward / 1e9:.1f} GFLOP | {total / 1e18:,.1f} EFLOP "
            f"| {total / high:,.0f} to {total / low:,.0f} |"
        )
    return lines


PARTS = {
    part.__name__: part
    for part in (
        anew,
        diagnosis,
        figures,
        findings,
        full_scale,
        layers,
        promises,
        records,
        rooms,
        runs,
        time_to_accuracy,
        verdicts,
        versions,
    )
}
PARTS |= {name: lambda book, name=name: front_table(name, studies.open_store()) for name in FRONT} | speed.PARTS


def fill(app, page, source):
    if page in PAGES:
        source[0] = re.sub(
            r"^% computed: (\w+)$",
            lambda found: "\n".join(PARTS[found[1]](Path(app.srcdir))),
            source[0],
            flags=re.MULTILINE,
        )


def setup(app):
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: PAGES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
