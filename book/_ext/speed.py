"""Tables of what ``aliasing bench`` measured, from the files that its ``--out`` wrote into ``data/benchmarks``."""

import json

import pandas as pd

from aliasing.records import home


def recorded(name):
    return json.loads((home() / f"data/benchmarks/{name}.json").read_text())[name]


def conditions(found):
    """Where and when."""
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    return (
        f"Measured on {found['date']} with version `{found['code']}` of the code: {found['device']}, "
        f"{found['threads']} threads, {versions}, {found['repeats']} turns."
    )


def layer_speed(book):
    """Forward and backward of every layer: against the published formulation, and against the fastest package."""
    found = recorded("layers")
    rows = pd.DataFrame(found["rows"])
    rows = rows[rows["pass"] == "forward+backward"]
    lines = [
        "| layer | memory format | times faster than published | target | fastest package | times faster than it |",
        "|---|---|--:|--:|---|--:|",
    ]
    targets = {(row["layer"], row["format"]): row["target"] for row in found["verdicts"]}
    for (layer, memory_format), cases in rows.groupby(["layer", "format"], sort=False):
        published = cases.loc[cases["peer"] == "published", "ratio"]
        others = cases[cases["peer"] != "published"].groupby("peer")["ratio"]
        fastest = others.median().idxmin() if len(others) else None
        target = targets[layer, memory_format]
        lines.append(
            f"| `{layer}` | {memory_format} | {spread(published)} | {target or ''} "
            f"| {fastest or 'none has it'} | {spread(others.get_group(fastest)) if fastest else ''} |"
        )
    return [*lines, "", conditions(found)]


def spread(ratios):
    """Median, smallest and largest, or the only one."""
    if len(ratios) == 1:
        return f"{ratios.iloc[0]:.1f}"
    return f"{ratios.median():.1f} ({ratios.min():.1f} to {ratios.max():.1f})"


def training_speed(book):
    """Our loop beside the plain one, and how much of the plain one is loading."""
    found = recorded("training")
    lines = [
        "| network | width | batch | images per second | plain loop | times faster | of the plain loop is loading |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['network']} | {row['width']} | {row['batch']} | {row['ours_images_per_s']:,.0f} "
            f"| {row['plain_images_per_s']:,.0f} | {row['ratio']:.1f} | {100 * row['loading']:.0f} % |"
        )
    return [*lines, "", conditions(found)]


def robustness_speed(book):
    """Corruptions and attacks beside the libraries that they replace or use."""
    found = recorded("robustness")
    lines = ["| what | library | times faster |", "|---|---|--:|"]
    for (name, peer), rows in pd.DataFrame(found["rows"]).groupby(["name", "peer"], sort=False):
        ratios = rows["ratio"].dropna()
        if len(ratios):
            lines.append(f"| {name.replace('_', ' ')} | {peer} | {spread(ratios)} |")
    return [*lines, "", conditions(found)]


PARTS = {part.__name__: part for part in (layer_speed, robustness_speed, training_speed)}
