"""The parts of pages that the build computes: layer reference, findings, status, counts of verdicts.

A page asks for a part with a comment line, ``% computed: layers``; the text is computed each time the book is built.
"""

import contextlib
import inspect
import json
import multiprocessing
import os
import platform
import re
import runpy
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from builder import FRONT, agreement, execution, front_table, markdown, only_published, verdict_table

import aliasing
from aliasing import chapters, models, studies
from aliasing.chapters import statistic
from aliasing.finetuning import AGREES, CHANGES
from aliasing.jobs import complete
from aliasing.metrics import count_flops
from aliasing.profiles import PROFILES
from aliasing.records import Store, code_version, home

PAGES = ["diagnose", "extend", "figures", "findings", "index", "layers", "rerun", "status"]
PACKAGES = ["aliasing", "torch", "torchvision", "numpy", "pandas", "papermill", "jupyter-book", "sphinx-book-theme"]
# Assumed in the plan of full scale, not measured: the peak rate of an H100 in bfloat16 without sparsity, and the share
# of it that a training uses. Images to train on: nine tenths of ImageNet's, and CamVid's.
PEAK, UTILISATION = 989e12, (0.2, 0.4)
IMAGES = {"folder": 1_153_050, "camvid": 367}
UNFILTERED = ("name", "num_classes", "width", "stem", "stem_stride")  # what a network costs, filters aside


def rooms(book):
    """The chain of imports, as the package states it."""
    stated = inspect.cleandoc(aliasing.__doc__).splitlines()
    return ["```text", *(line.strip() for line in stated if line.startswith("    ")), "```"]


def layers(book):
    """One section per class: the names it answers to, then its documentation."""
    from aliasing.layers import CATALOGUE

    names, rows = {}, []
    for name, entry in CATALOGUE.items():
        kind, strides = entry.layer.__name__, entry.strides
        names.setdefault(entry.layer, []).append(f"`{name}`")
        allowed = f"{min(strides)} to {max(strides)}" if len(strides) > 1 else strides[0]
        rows.append((f"`{name}`", entry.description, allowed, entry.source, f"[{kind}](#layer-{kind.lower()})"))
    lines = ["## Names", "", *markdown("name | what it does | strides | source | class", rows)]
    for layer, answers_to in names.items():
        lines += ["", f"(layer-{layer.__name__.lower()})=", f"## {layer.__name__}", ""]
        lines += [f"Names: {', '.join(answers_to)}.", ""]
        lines += ["```{eval-rst}", f".. autoclass:: {layer.__module__}.{layer.__qualname__}", "```"]
    return lines


def framed(frame, corner):
    """A data frame as a table; ``corner`` is the heading above the names of its rows."""
    return markdown(" | ".join([corner, *frame.columns]), frame.itertuples(name=None))


def promises(book):
    """Every layer against the contract, and the same for the layers of other packages."""
    sys.path.insert(0, str(home()))
    from benchmarks.promises import ours, peers_table, table

    return [
        *framed(table(ours()).rename(index="`{}`".format), "layer"),
        "",
        "The same calls on what others offer, made when this page was built or, where a package was not installed,",
        "on the date in the row:",
        "",
        *framed(peers_table(home() / "data/peers.json"), "peer"),
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
    sites = []
    for portrait in found.portraits:
        for site in portrait.sites:
            shares = (site.alias_energy, site.at_risk, site.alias_error, site.max_bias)
            name = f"{portrait.network}, `{site.name}` ({site.module})"
            sites.append((name, *(f"{100 * share.value:.1f} %" for share in shares)))
    headings = "network, site (module) | alias energy | in front of filters | alias error | maximum-sampling bias"
    table = framed(found.table().drop(index="weights"), "measure")
    return [*table, "", "Where samples are dropped:", "", *markdown(headings, sites)]


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
    for paper, items in pd.read_csv(home() / "data/published/figures.csv").fillna("").groupby("paper", sort=False):
        rows = []
        for item in items.itertuples():
            anchor = re.sub(r"[^\w -]", "", item.where.lower()).replace(" ", "-")
            link = f"[{item.where}](notebooks/{paper}.ipynb#{anchor})" if item.where else "not there"
            rows.append((item.item, link, item.why))
        table = markdown("in the paper | in the chapter | remark", rows)
        lines += [f"## {studies.get(paper).source}", "", *table, ""]
    return lines


def decision(rows):
    """The verdict of each profile, and below it what was measured."""
    lines = []
    for profile, own in rows.groupby("profile", sort=False):
        note = f" ({own.note.iloc[0]})" if own.note.iloc[0] else ""
        lines.append(f"* **{own.verdict.iloc[0]}** in profile `{profile}`{note}")
        for row in own.itertuples():
            lines.append(f"  * {row.statistic}: {statistic(row)} (rule: {row.rule})")
    return [*lines, ""]


def runs(book):
    """The profile and the stamp of each notebook of this book."""
    rows = []
    for path in sorted((book / "notebooks").glob("*.ipynb")):
        known = execution(path)
        rows.append((f"[{path.stem}](notebooks/{path.name})", f"`{known['profile']}`", f"`{known['stamp']}`"))
    return markdown("notebook | profile | stamp", rows)


def anew(book):
    """In a book whose networks were all trained for it: how far its verdicts are the published ones."""
    made = [execution(path) for path in sorted((book / "notebooks").glob("*.ipynb"))]
    if not any(known.get("fresh") for known in made):
        return []
    return ["## Trained anew", "", *agreement(Store(published=Path(os.devnull)), only_published()), ""]


def records(book):
    """What the records cost: networks, hours of training and measuring per kind of device, images seen in training."""
    store, rows = studies.open_store(), []
    for row in studies.status_of().itertuples():
        if not row.done:
            continue
        found = [(job, studies.asked(job, store)) for job in studies.get(row.study).jobs(row.profile)]
        found = [(job, record) for job, record in found if complete(job, record)]
        spent = pd.DataFrame(
            {"trained": key == "training", "hours": origin["seconds"] / 3600, "device": origin["device"]}
            for _, record in found
            for key, origin in record.provenance.items()
        )
        seen = sum(job.run.recipe.epochs * record.measurements["training"].get("images", 0) for job, record in found)
        hours = spent.groupby("trained")["hours"].sum()
        spans = (f"{hours.get(trained, 0):.2f}" for trained in (True, False))
        kinds = ", ".join(spent["device"].str.partition(" (")[0].unique())
        rows.append((row.study, f"`{row.profile}`", f"{row.done} of {row.planned}", *spans, kinds, f"{seen / 1e6:.1f}"))
    return markdown("study | profile | on record | training (h) | measuring (h) | on | million images", rows)


def time_to_accuracy(book):
    """How long the plain networks of the comparison trained, and how accurate they became."""
    rows = []
    for profile in PROFILES:
        epochs = {job.run.id: job.run.recipe.epochs for job in studies.get("comparison").jobs(profile)}
        networks = chapters.on_record("comparison", profile, empty=True)
        for name, plain in networks[networks["layer"] == "subsample"].groupby("network", sort=False):
            first, seconds = plain.iloc[0], plain["training.seconds"].mean()
            rate = epochs[first["id"]] * first["training.images"] / seconds
            own = (first["training.data"], f"{seconds:.0f}", f"{rate:,.0f}", first["plain"], first["device"])
            rows.append((f"`{profile}`", name, *own))
    headings = "profile | network | data | seconds of training | images per second | on test pictures | device"
    return markdown(headings, rows)


def versions(book):
    """What the book was built with."""
    rows = [("Python", platform.python_version()), *((package, version(package)) for package in PACKAGES)]
    return [
        f"This book was built from version `{code_version()}` of the code, on {platform.system()} "
        f"({platform.machine()}), with:",
        "",
        *markdown("package | version", rows),
    ]


@cache
def forward_pass(**network):
    """Operations of a network without filters, on one picture of the ``cluster`` profile."""
    return count_flops(models.create(**network), (180, 240) if network["name"].startswith("unet") else (224, 224))


def full_scale(book):
    """What training the ``cluster`` profile would take, per architecture: 3 F N E operations each."""
    low, high = (PEAK * share * 3600 for share in UTILISATION)
    trainings, rows = {}, []
    for job in (job for study in studies.STUDIES.values() for job in study.jobs("cluster")):
        trainings.setdefault(job.run.network["name"], {})[job.run.id] = job.run
    for name, runs in trainings.items():
        forward = [
            forward_pass(**{key: value for key, value in run.network.items() if key in UNFILTERED})
            for run in runs.values()
        ]
        counts = [run.dataset.get("count", IMAGES.get(run.dataset["name"], 0)) for run in runs.values()]
        total = 3 * sum(f * n * run.recipe.epochs for f, n, run in zip(forward, counts, runs.values(), strict=True))
        cost = f"{total / 1e18:,.1f} EFLOP", f"{total / high:,.0f} to {total / low:,.0f}"
        ends = " to ".join(f"{end / 1e9:.1f}" for end in sorted({min(forward), max(forward)}))
        rows.append((f"`{name}`", len(runs), f"{ends} GFLOP", *cost))
    return markdown("network | trainings | forward pass without filters | all trainings | GPU-hours", rows)


# What ``aliasing bench`` measured, from the files that its ``--out`` wrote into ``data/benchmarks``.


def conditions(found):
    """When, with what and where it was measured."""
    packages = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    where = f"{found['device']}, {threads}, {packages}"
    return f"Measured on {found['date']} with version `{found['code']}` of the code: {where}"


def recorded(name):
    """The rows, their table with the verdicts, and a line that says where and when."""
    found = json.loads((home() / f"data/benchmarks/{name}.json").read_text())[name]
    return pd.DataFrame(found["rows"]), found.get("verdicts"), ["", f"{conditions(found)}, {found['repeats']} turns."]


def spread(ratios):
    """Median, smallest and largest, or the only one, or that there is none."""
    if ratios.empty:
        return "none"
    if len(ratios) == 1:
        return f"{ratios.iloc[0]:.1f}"
    return f"{ratios.median():.1f} ({ratios.min():.1f} to {ratios.max():.1f})"


def layer_speed(book):
    """Forward and backward of every layer: against the published formulation, and against the fastest package."""
    found, judged, conditions = recorded("layers")
    targets = {(row["layer"], row["format"]): row["target"] for row in judged}
    rows = []
    both = found[found["pass"] == "forward+backward"]
    for (layer, memory_format), cases in both.groupby(["layer", "format"], sort=False):
        others = cases[cases["peer"] != "published"].groupby("peer")["ratio"]
        fastest = others.median().idxmin() if len(others) else None
        ours = spread(cases.loc[cases["peer"] == "published", "ratio"])
        theirs = (fastest, spread(others.get_group(fastest))) if fastest else ("none has it", "")
        rows.append((f"`{layer}`", memory_format, ours, targets[layer, memory_format] or "", *theirs))
    headings = "layer | memory format | times faster than published | target | fastest package | times faster than it"
    return markdown(headings, rows) + conditions


def training_speed(book):
    """Our loop beside the plain one, and how much of the plain one is loading."""
    found, _, conditions = recorded("training")
    rows = []
    for row in found.itertuples():
        speeds = f"{row.ours_images_per_s:,.0f}", f"{row.plain_images_per_s:,.0f}", f"{row.ratio:.1f}"
        rows.append((row.network, row.width, row.batch, *speeds, f"{100 * row.loading:.0f} %"))
    headings = "network | width | batch | images per second | plain loop | times faster | of the plain loop is loading"
    return markdown(headings, rows) + conditions


def robustness_speed(book):
    """Corruptions and attacks beside the libraries that they replace or use."""
    found, _, conditions = recorded("robustness")
    pairs = found.dropna(subset="ratio").groupby(["name", "peer"], sort=False)["ratio"]
    rows = ((name.replace("_", " "), peer, spread(ratios)) for (name, peer), ratios in pairs)
    return markdown("what | library | times faster", rows) + conditions


def exporters(book):
    """Every layer through every exporter, by size, and why something was refused."""
    found = pd.read_csv(home() / "data/benchmarks/exporters.csv", keep_default_na=False)
    meant = found[(found["made"] == found["size"]) | found["exporter"].str.contains("any size|trace")]
    other = found.drop(meant.index)
    cells = meant.groupby(["layer", "size", "exporter"], sort=False)["difference"].agg(
        lambda values: "refused" if "" in set(values) else f"{max(map(float, values)):.1g}"
    )
    table = cells.unstack(sort=False)
    rows = [(f"`{layer}`", size, *row) for (layer, size), row in zip(table.index, table.to_numpy(), strict=True)]
    refused = meant[meant["refused"] != ""].groupby(["exporter", "refused"], sort=False)["layer"]
    reasons = [(kind, f"`{line}`", ", ".join(layers.unique())) for (kind, line), layers in refused]
    counts = f"{(other['refused'] != '').sum()} of {len(other)}"
    return [
        *markdown(" | ".join(["layer", "size", *table.columns]), rows),
        "",
        f"Of calls at a size that the program was not made for, {counts} were refused. The other refusals:",
        "",
        *markdown("exporter | what it said | layers", reasons),
    ]


def conversions(book):
    """What became of the networks of three libraries when they were converted."""
    rows = []
    for library, own in pd.read_csv(home() / "data/benchmarks/conversion.csv").groupby("library", sort=False):
        outcomes = own["outcome"].value_counts()
        told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        rows.append((library, len(own), told, f"{own['difference'].max():.1g}"))
    return markdown("library | networks | outcome | largest difference", rows)


def recipes(book):
    """What ways of fine-tuning leave of the original's answers; in brackets, each minus the first."""
    found, rows = json.loads((home() / "data/benchmarks/finetuning.json").read_text()), []
    measures = (CHANGES, "consistency, crop shifts", AGREES, "accuracy", "accuracy on all classes")

    def cell(row, name):
        low, high = row.get(f"{name}, minus the first", [None] * 3)[1:3]
        return f"{100 * row[name][0]:.1f} %" + ("" if low is None else f" ({100 * low:+z.1f} to {100 * high:+z.1f})")

    for row in found["rows"]:
        how = (row["epochs"], f"{row['lr']:g}" if row["epochs"] else "") if "lr" in row else ("", "")
        rows.append((row["weights"], *how, *(cell(row, name) for name in measures)))
    titles = " | ".join(["weights that move", "epochs", "rate", *measures])
    return [*markdown(titles, rows), "", f"{conditions(found)}."]


PARTS = (anew, conversions, diagnosis, exporters, figures, findings, full_scale, layer_speed, layers, promises, records)
PARTS = {
    part.__name__: part
    for part in (*PARTS, recipes, robustness_speed, rooms, runs, time_to_accuracy, training_speed, verdicts, versions)
}


PARTS |= {name: lambda book, name=name: front_table(name, studies.open_store()) for name in FRONT}


def unbroken(line):
    """A line of a table, in which a number and its unit stay together, and so do the ends of an interval."""
    space = r"(?<=\d) (?=%)|(?<=\d:) (?=\d)|(?<=\d) (?=to -?\d)|(?<=\d to) (?=-?\d)"
    return re.sub(space, "\N{NO-BREAK SPACE}", line) if line.startswith("|") else line


SLOW = {"layers": promises, "diagnose": diagnosis}  # by the page that needs them


def begin(app):
    """Have the slow parts computed on other cores while the pages that do without them are read."""
    app.slow = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    app.begun = {part.__name__: app.slow.submit(part, Path(app.srcdir)) for part in SLOW.values()}


def fill(app, page, source):
    def computed(found):
        name = found[1]
        lines = app.begun[name].result() if name in app.begun else PARTS[name](Path(app.srcdir))
        return "\n".join(map(unbroken, lines))

    if page in PAGES:
        source[0] = re.sub(r"^% computed: (\w+)$", computed, source[0], flags=re.MULTILINE)


def setup(app):
    app.connect("builder-inited", begin)
    app.connect("env-before-read-docs", lambda app, env, pages: pages.sort(key=SLOW.__contains__))
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: PAGES)
    app.connect("build-finished", lambda app, error: app.slow.shutdown())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
