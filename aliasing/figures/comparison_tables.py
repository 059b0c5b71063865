"""The comparison in words and numbers: the table of everything, the decision guide, the published head-to-heads.

The guide's sentences are chosen by the rules in the functions below, and every number in them is formatted from the
results table: no sentence is written about a particular layer.
"""

import pandas as pd
from IPython.display import Markdown

from ..metrics import Estimate
from ..plots import interval
from ..records import home
from ..studies.comparison_metrics import METRICS, prepared
from ..studies.findings import across_seeds, paired
from .comparison import BACKBONES, named, summary

__all__ = ["guide", "overview", "published", "sentences"]

COLUMNS = (
    "accuracy",
    "circular_consistency",
    "standard_consistency",
    "top1_change_crop",
    "small_attack",
    "corruption_error",
)
TOLERANCE = 0.01  # of accuracy, as a fraction: what we would pay for stability
SAHA = ("CIFAR-10", "Tiny ImageNet")  # of their six, a small and a large one
# What the published tables call our layers; TIPS there has its losses, the filter of the blur is not stated.
NAMES = {"max": "subsample", "blur (filter not stated)": "tri-3", "tips + losses": "tips"}


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """The big table: per cent, mean over seeds with 95 % interval, and the cost relative to ``subsample``."""
    table = prepared(table)
    titles = {metric.column: f"{metric.arrow} (%)" for metric in METRICS if metric.column in COLUMNS}
    grouped = table.groupby(["backbone", "layer"], sort=False)
    shown = grouped[list(titles)].agg(lambda values: interval(values.dropna()) if values.notna().any() else "")
    shown = shown.rename(columns=titles)
    for name, title in (("work", "MACs ×"), ("time", "time ×"), ("training.parameters", "parameters")):
        shown[title] = grouped[name].first().map(lambda value: f"{value:,.2f}".removesuffix(".00"))
    return shown.rename(index=BACKBONES, level=0)


def guide(table: pd.DataFrame) -> Markdown:
    """Which layer should I use? The answers of ``sentences``, as a list for each network."""
    parts = []
    for backbone, rows in prepared(table).groupby("backbone", sort=False):
        parts.append(f"**{BACKBONES[str(backbone)]}.**\n")
        parts += [f"* {sentence}" for sentence in sentences(rows)]
        parts.append("")
    return Markdown("\n".join(parts))


def sentences(rows: pd.DataFrame) -> list[str]:
    """The guide for the networks of one kind, from prepared results."""
    usual = _usual(rows)
    found = [
        _first_choice(rows, usual),
        _exact(rows, usual),
        _most(rows, usual, "standard_consistency", "If pictures move and new content enters at the border"),
        _most(rows, usual, "small_attack", "If small perturbations worry you"),
        _most(rows, usual, "corruption_error", "If the sensor is poor", higher=False),
        _cheapest(rows),
        _dominated(rows),
    ]
    return [sentence for sentence in found if sentence]


def _usual(rows: pd.DataFrame) -> str:
    """The first choice: of the layers within ``TOLERANCE`` of the best mean accuracy, the one that changes least."""
    accuracy = summary(rows, "accuracy")["mean"]
    close = accuracy.index[accuracy >= accuracy.max() - TOLERANCE]
    return str(summary(rows, "top1_change_crop")["mean"].loc[close].idxmin())


def _first_choice(rows: pd.DataFrame, usual: str) -> str:
    accuracy = summary(rows, "accuracy")["mean"]
    best = accuracy.idxmax()
    why = "the most accurate layer" if best == usual else f"within a point of the most accurate, {best}"
    text = (
        f"Without a special wish, take **{usual}**: {why} ({_per(rows, best)}), and one pixel of crop shift changes "
        f"its answer in {_per(rows, usual, 'top1_change_crop')} of the cases, the least of the layers within that point"
    )
    if usual == "subsample":
        return text + "."
    return (
        f"{text}. Subsample: {_per(rows, 'subsample')} and {_per(rows, 'subsample', 'top1_change_crop')}. It takes "
        f"{_cost(rows, usual):.2f} times the multiply-accumulates of subsample."
    )


def _exact(rows: pd.DataFrame, usual: str) -> str:
    """The most accurate of the layers whose circular consistency is 1 in every seed, to four digits; its price."""
    worst = rows.groupby("layer", sort=False)["circular_consistency"].min()
    exact = worst.index[worst > 0.9999].tolist()
    if not exact:
        return f"No layer is exactly invariant to circular shifts: the best worst seed is {100 * worst.max():.2f} %."
    best = summary(rows, "accuracy")["mean"].loc[exact].idxmax()
    text = (
        f"If circular shifts must change nothing at all, only {named(exact)} will do (consistency "
        f"{100 * worst[exact].min():.2f} % in the worst seed); take **{best}**"
    )
    if best == usual:
        return text + "."
    return (
        f"{text}. Against {usual} its accuracy is {_signed(_change(rows, 'accuracy', best, usual))}, its consistency "
        f"under standard shifts {_signed(_change(rows, 'standard_consistency', best, usual))}."
    )


def _most(rows: pd.DataFrame, usual: str, column: str, when: str, higher: bool = True) -> str:
    """The best layer in ``column``, unless it is the first choice or not clearly better than that."""
    title = next(metric.title for metric in METRICS if metric.column == column)
    if rows[column].isna().all():
        return ""
    means = summary(rows, column)["mean"]
    best = str(means.idxmax() if higher else means.idxmin())
    numbers = f"{title} {_per(rows, best, column)}"
    if best == usual:
        return f"{when}, {usual} is also the best of all: {numbers}, subsample {_per(rows, 'subsample', column)}."
    change = _change(rows, column, best, usual)
    if not _clear(change):
        return f"{when}, stay with {usual}: {best} has the best {numbers}, but the difference is {_signed(change)}."
    return f"{when}, take **{best}**: {numbers}, {_signed(change)} against {usual}."


def _cheapest(rows: pd.DataFrame) -> str:
    """Of the layers with clearly less one-pixel change than subsample, the one with the fewest operations."""
    clear = {}
    for layer in rows["layer"].unique():
        change = _change(rows, "top1_change_crop", layer, "subsample")
        if layer != "subsample" and change is not None and _clear(change) and change.value < 0:
            clear[layer] = _cost(rows, layer)
    if not clear:
        return "No layer changes its answer clearly less often than subsample under one pixel of crop shift."
    best = min(clear, key=lambda layer: clear[layer])
    dearest = max(clear, key=lambda layer: clear[layer])
    text = (
        f"If operations are short, **{best}** is the cheapest with clearly less one-pixel change than subsample: "
        f"{clear[best]:.2f} times the multiply-accumulates for "
        f"{_signed(_change(rows, 'top1_change_crop', best, 'subsample'))}"
    )
    return text + (f" (the dearest of those, {dearest}: {clear[dearest]:.2f} times)." if dearest != best else ".")


def _dominated(rows: pd.DataFrame) -> str:
    """Layers with a rival clearly better in accuracy and in one-pixel change, at no more operations."""
    beaten = {}
    names = rows["layer"].unique()
    for layer in names:
        for rival in names:
            accuracy = _change(rows, "accuracy", rival, layer)
            pixel = _change(rows, "top1_change_crop", rival, layer)
            if rival == layer or accuracy is None or pixel is None or _cost(rows, rival) > _cost(rows, layer):
                continue
            if _clear(accuracy) and accuracy.value > 0 and _clear(pixel) and pixel.value < 0:
                beaten[layer] = f"{layer} (by {rival}: accuracy {_signed(accuracy)}, one-pixel change {_signed(pixel)})"
                break
    if not beaten:
        return "No layer has a rival that is clearly better in accuracy and one-pixel change at no more operations."
    listed = "; ".join(beaten.values())
    return f"Clearly beaten in accuracy and in one-pixel change, by a rival of no more operations: {listed}."


def _change(rows: pd.DataFrame, column: str, first: str, second: str) -> Estimate | None:
    return paired(across_seeds(rows, column, layer=first), across_seeds(rows, column, layer=second))


def _clear(change: Estimate | None) -> bool:
    """Whether the interval leaves zero out; a single seed shows nothing."""
    return change is not None and (change.low > 0 or change.high < 0)


def _signed(change: Estimate | None) -> str:
    if change is None:
        return "unknown"
    if change.n == 1:
        return f"{100 * change.value:+.1f} points (one seed)"
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def _per(rows: pd.DataFrame, layer: str, column: str = "accuracy") -> str:
    return f"{100 * summary(rows, column)['mean'][layer]:.1f} %"


def _cost(rows: pd.DataFrame, layer: str) -> float:
    return float(rows.loc[rows["layer"] == layer, "work"].iloc[0])


def published(table: pd.DataFrame) -> pd.DataFrame:
    """Every head-to-head of layers that others printed (per cent), beside ours on the VGG.

    Theirs are collected from ``data/published``: each has its own data, network, recipe and protocol, so that only the
    order within a block can be compared.
    """
    folder = home() / "data/published"
    zhang = pd.read_csv(folder / "zhang2019.csv").rename(columns={"layer": "method"})
    zhang = zhang[(zhang["network"] == "VGG13-bn") & ~zhang["augmented"].astype(bool)].assign(by="Zhang")
    saha = pd.read_csv(folder / "saha2024.csv").assign(by="Saha and Gokhale")
    saha = saha[saha["metric"].isin(("accuracy", "circular_consistency")) & saha["dataset"].isin(SAHA)]
    others = pd.read_csv(folder / "comparison.csv")
    others = others.assign(by=others["status"].map({"secondary": "course project", "verified": "Zou et al."}))
    theirs = pd.concat([zhang, saha, others])
    theirs["metric"] = theirs["metric"].str.removeprefix("circular_")
    shown = theirs.pivot_table("value", ["by", "dataset", "network", "method"], "metric", sort=False)
    ours = prepared(table)
    ours = ours[ours["backbone"] == "vgg"].groupby("layer")[["accuracy", "circular_consistency"]].agg(interval)
    methods = shown.index.get_level_values("method").map(lambda name: NAMES.get(name, name.split(" of ")[0]))
    for column, title in (("accuracy", "ours: accuracy"), ("circular_consistency", "ours: circular consistency")):
        shown[title] = [ours[column].get(name, "") for name in methods]
    return shown.rename(columns={"accuracy": "theirs: accuracy", "consistency": "theirs: consistency"})
