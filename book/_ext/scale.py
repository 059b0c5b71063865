"""The plan of the ``cluster`` profile, computed from what ``aliasing bench scaling`` recorded and what is assumed."""

import json

from aliasing.records import home

IMAGENET = 1_281_167  # training images of ILSVRC 2012
ARCHIVES = 138e9 + 6.3e9  # bytes of its two archives, from memory [unverified]
PEAK = 989e12  # bfloat16 operations per second of an H100 SXM, without sparsity, from memory [unverified]
UTILISATION = (0.2, 0.4)  # assumed
BACKWARD = 2  # operations of a backward pass over those of a forward pass
SIDE = 224


def network(scaling, run):
    """What was recorded of a run's network."""
    from aliasing.benchmarks.scaling import network_key

    key = network_key(run)
    if key not in scaling["networks"]:
        raise LookupError(
            f"{key} is planned and not recorded: aliasing bench scaling --out data/benchmarks/scaling.json"
        )
    return scaling["networks"][key]


def plain(scaling):
    """The ResNet-50 that everything is compared with."""
    options = {"downsample": "subsample", "name": "resnet50", "num_classes": 1000}
    return scaling["networks"][json.dumps([options, [SIDE] * 2])]


def images(run):
    """Training images of a run; a tenth of every class of a folder is held out."""
    if run.dataset["name"] == "folder":
        return round(0.9 * IMAGENET)
    return {"camvid": 367}.get(run.dataset["name"]) or run.dataset["count"]


def hours(operations, utilisation):
    return operations / (PEAK * utilisation) / 3600


def span(operations):
    """GPU-hours at both ends of the assumed utilisation."""
    low, high = (hours(operations, share) for share in reversed(UTILISATION))
    return f"{low:,.0f} to {high:,.0f}" if high >= 10 else f"{low:.1f} to {high:.1f}"


def power(operations):
    """A number of operations as a formula."""
    return f"${operations / 1e18:,.1f} \\cdot 10^{{18}}$"


def costs(scaling):
    """Per study: its trainings that no study above it asked for, their operations, and those of all its shifts."""
    from aliasing.studies import STUDIES

    seen, rows = set(), {}
    for study in STUDIES.values():
        trainings = rolling = 0
        new = []
        for job in study.jobs("cluster"):
            flops = network(scaling, job.run)["flops"]
            if job.run.id not in seen:
                seen.add(job.run.id)
                new.append(job.run)
                trainings += (1 + BACKWARD) * flops * images(job.run) * job.run.recipe.epochs
            for wanted in job.measurements:
                if wanted.name == "circular_rolls" and (job.run.id, wanted.key) not in seen:
                    seen.add((job.run.id, wanted.key))
                    rolling += flops * wanted.options["count"] * SIDE**2
        rows[study.name] = (new, trainings, rolling)
    return rows


def measured(scaling):
    """What was measured, with the machine."""
    lines = ["| one epoch of | images/s, one process | two processes | efficiency |", "|---|---|---|---|"]
    lines += [
        f"| `{row['network']}`, {row['size']} pixels, batch {row['batch']} | {row['one_images_per_s']:,.0f} "
        f"| {row['two_images_per_s']:,.0f} | {100 * row['efficiency']:.0f} % "
        f"({100 * row['efficiency_low']:.0f} to {100 * row['efficiency_high']:.0f}) |"
        for row in scaling["rows"]
    ]
    return [
        f"Machine: {scaling['device']}, {scaling['cores']} cores, one thread a process, PyTorch "
        f"{scaling['versions']['torch']}; medians of turns, of which there were {scaling['repeats']}. The load of the "
        f"machine was {scaling['load']:.1f}; with more than one a core, the rates are too low and efficiencies moot.",
        "",
        *lines,
        "",
        f"Decoding: one core reads, decodes and resizes {scaling['decoded_images_per_s']:,.0f} images/s "
        f"(JPEG of 500x375 pixels, {scaling['file_bytes'] / 1000:,.0f} kB).",
        "",
        "Images/s on a GPU, and the utilisation reached there: **not yet measured**.",
    ]


def training(scaling):
    """Operations and GPU-hours of each study's trainings."""
    flops = plain(scaling)["flops"]
    rows = costs(scaling)
    runs = [run for new, *_ in rows.values() for run in new]
    count, epochs = round(0.9 * IMAGENET), 90
    one = (1 + BACKWARD) * flops * count * epochs
    low, high = UTILISATION
    lines = [
        f"For the plain ResNet-50, $F = {flops / 1e9:.2f} \\cdot 10^9$, $N = {count:,}$, $E = {epochs}$:",
        "",
        f"$$3 \\cdot {flops / 1e9:.2f} \\cdot 10^9 \\cdot {count:,} \\cdot {epochs} = "
        f"{one / 1e18:.2f} \\cdot 10^{{18}}, \\qquad \\frac{{{one / 1e18:.2f} \\cdot 10^{{18}}}}"
        f"{{{PEAK / 1e12:.0f} \\cdot 10^{{12}} \\cdot {high} \\cdot 3600}} = {hours(one, high):.1f}\\ \\text{{h}}$$",
        "",
        f"of one GPU, or {hours(one, low):.1f} hours at the lower end of what is assumed.",
        "",
        "| study | trainings not planned above | operations | GPU-hours |",
        "|---|---|---|---|",
        *(f"| `{name}` | {len(new)} | {power(total)} | {span(total)} |" for name, (new, total, _) in rows.items()),
    ]
    total = sum(total for _, total, _ in rows.values())
    return [*lines, f"| **all** | {len(runs)} | {power(total)} | {span(total)} |"]


def measuring(scaling):
    """The exhaustive shifts, the one measurement whose passes grow with the area of the picture."""
    from aliasing.studies.bases import BASES

    rows = costs(scaling)
    rolling = sum(rolled for *_, rolled in rows.values())
    trainings = sum(total for _, total, _ in rows.values())
    count = BASES["cluster"].exact
    return [
        f"The exhaustive circular shifts of {count} images take ${count} \\cdot {SIDE}^2 = "
        f"{count * SIDE**2 / 1e6:.2f} \\cdot 10^6$ forward passes of a network, for all networks {power(rolling)} "
        f"operations or {span(rolling)} GPU-hours: {100 * rolling / trainings:.1f} per cent of the trainings.",
    ]


def reading(scaling):
    """Cores that feed one GPU."""
    flops = plain(scaling)["flops"]
    rates = [PEAK * share / ((1 + BACKWARD) * flops) for share in UTILISATION]
    cores = [rate / scaling["decoded_images_per_s"] for rate in rates]
    return [
        f"A GPU that trains the plain ResNet-50 at the assumed utilisation asks for {rates[0]:,.0f} to {rates[1]:,.0f} "
        f"images/s; at {scaling['decoded_images_per_s']:,.0f} images/s a core that is the work of {cores[0]:,.0f} to "
        f"{cores[1]:,.0f} cores.",
    ]


def storage(scaling, records):
    """Bytes: pictures, checkpoints, records."""
    from aliasing.benchmarks.scaling import planned

    parameters = [network(scaling, run)["parameters"] for run in planned().values()]
    lines = [line for path in sorted(records.glob("*.jsonl")) for line in path.read_text().splitlines()]
    count = round(0.9 * IMAGENET)
    return [
        "| what | arithmetic | size |",
        "|---|---|---|",
        f"| pictures | the two archives of ImageNet [unverified] | {ARCHIVES / 1e9:,.0f} GB |",
        f"| the same in memory, if they were held | ${count:,} \\cdot 3 \\cdot {SIDE}^2$ "
        f"| {count * 3 * SIDE**2 / 1e9:,.0f} GB |",
        f"| checkpoints | {len(parameters)} networks, {sum(parameters) / 1e6:,.0f} million parameters, weight and "
        f"momentum, 4 bytes | {8 * sum(parameters) / 1e9:,.1f} GB |",
        f"| records | {len(parameters)} lines of {sum(map(len, lines)) / len(lines) / 1000:,.1f} kB, the mean of those "
        f"published | {len(parameters) * sum(map(len, lines)) / len(lines) / 1e6:,.1f} MB |",
    ]


def part(name):
    """A part of the page, as a function of the book's folder."""

    def compute(book):
        scaling = json.loads((home() / "data/benchmarks/scaling.json").read_text())["scaling"]
        if name == "storage":
            return storage(scaling, home() / "data/records")
        return {"measured": measured, "training": training, "measuring": measuring, "reading": reading}[name](scaling)

    return compute


PARTS = {f"scale_{name}": part(name) for name in ("measured", "training", "measuring", "reading", "storage")}
