"""Maximum-sampling bias against consistency over the networks of all studies."""

import pandas as pd

from .. import studies
from ..plots import COLOURS, MARKERS, Captioned, grid, legend, show
from ..records import Record, Store
from ..studies.correlation import correlation

__all__ = ["bias_against_consistency", "correlations", "gathered"]

DEFINITIONS = ("exact", "nearest", "weight")
CONSISTENCIES = {"standard_consistency": "standard", "circular_consistency": "circular"}
NEEDED = ("msb_nearest", "standard_consistency", "accuracy")


def gathered(profile: str) -> pd.DataFrame:
    """Every classifier of ``profile``, of any study, on which bias, standard consistency and accuracy are known."""
    store, rows, seen = Store(), [], set[str]()
    for study in studies.STUDIES.values():
        for job in study.jobs(profile):
            if job.run.id in seen:
                continue
            seen.add(job.run.id)
            values = _values(store.load(job.run))
            if all(values.get(name) is not None for name in NEEDED):
                rows.append(values | _identity(job.run.network) | {"seed": job.run.seed, "id": job.run.id})
    table = pd.DataFrame(rows)
    return table[~table.pop("duplicate")]


def _identity(network: dict) -> dict[str, str | bool]:
    """Layer, network, what is resampled as one kind, and whether it is max pooling under its second name."""
    layer = network["downsample"]
    layer = layer if isinstance(layer, str) else layer["name"]
    others = {key: value for key, value in network.items() if key != "num_classes"}
    # Behind a dense max, "subsample" is max pooling cut at another place; "max" stands for both.
    dense_max = network["name"].startswith("vgg") and not (network.get("strided") or network.get("pool") == "none")
    duplicate = layer == "subsample" and dense_max
    return {"layer": layer, "network": network["name"], "kind": str(others), "duplicate": duplicate}


def _values(record: Record) -> dict[str, float]:
    """Scalars of all measurements under their names; of standard shifts only those of up to 8 pixels."""
    values = {}
    for key, measured in sorted(record.measurements.items()):
        if key.startswith("shift_consistency") and "max_shift=8" not in key:
            continue
        for name, value in measured.items():
            value = value["value"] if isinstance(value, dict) and "value" in value else value
            if isinstance(value, int | float) and name not in values:
                values[name] = value
    return values


def correlations(profile: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Pearson's and Spearman's coefficients, plain and given accuracy, with and without max pooling."""
    table = gathered(profile) if table is None else table
    rows = []
    for column, shift in CONSISTENCIES.items():
        for definition in DEFINITIONS:
            for maximum in (True, False):
                chosen = table if maximum else table[table["layer"] != "max"]
                row: dict[str, object] = {
                    "consistency": shift,
                    "bias": definition,
                    "max pooling": "with" if maximum else "without",
                }
                known = chosen.dropna(subset=[c for c in (column, f"msb_{definition}") if c in chosen])
                row |= {"networks": len(known), "kinds": known["kind"].nunique()}
                for name, ranks, given in (
                    ("Pearson", False, None),
                    ("Spearman", True, None),
                    ("Spearman given accuracy", True, "accuracy"),
                ):
                    has = {column, f"msb_{definition}"} <= set(chosen)
                    found = correlation(chosen, f"msb_{definition}", column, "kind", given, ranks) if has else None
                    interval = f"[{found.low:.2f},\N{NO-BREAK SPACE}{found.high:.2f}]" if found else ""
                    row[name] = f"{found.value:.2f} {interval}" if found else "too few"
                rows.append(row)
    return pd.DataFrame(rows).set_index(["consistency", "bias", "max pooling"])


def bias_against_consistency(profile: str) -> Captioned:
    """One point per trained network, of all studies."""
    table = gathered(profile)
    figure, axes = grid(2, 2, width=9, height=3.0, sharey="row", sharex="col")
    for row, (column, shift) in zip(axes, CONSISTENCIES.items(), strict=True):
        for axis, definition in zip(row, ("exact", "nearest"), strict=True):
            for (layer, network), points in table.groupby(["layer", "network"], sort=False):
                if column in points:
                    face = COLOURS[layer] if network.startswith("vgg") else "none"
                    x, y = points[f"msb_{definition}"], points[column]
                    axis.scatter(x, y, color=COLOURS[layer], facecolor=face, marker=MARKERS[layer], s=36)
        row[0].set_ylabel(f"{shift} consistency")
    for axis, definition in zip(axes[1], ("exact", "nearest"), strict=True):
        axis.set_xlabel(f"maximum-sampling bias ({definition})")
    layers = [name for name in COLOURS if name in set(table["layer"])]
    others = {"other networks": {"mfc": "none"}}
    legend(axes[0, 1], layers, others, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    found = correlation(table, "msb_nearest", "standard_consistency", "kind")
    without = correlation(table[table["layer"] != "max"], "msb_nearest", "standard_consistency", "kind")
    told = "; ".join(
        f"{name} {value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
        for name, value in (("with max pooling", found), ("without", without))
        if value
    )
    return show(
        figure,
        f"Maximum-sampling bias against consistency, {len(table)} trained networks of {table['kind'].nunique()} kinds "
        f"from all chapters of profile {profile}; VGGs are filled. Spearman (nearest, standard): {told or 'too few'}; "
        "intervals: bootstrap over kinds of networks.",
        "Four scatter plots; max pooling stands alone at a bias of one.",
    )
