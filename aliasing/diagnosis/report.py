"""The report: one HTML page with its styles and pictures inside, for light and dark, for desks and phones."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from .drawing import bar, curve_svg, picture, shift
from .measuring import AT_SITES, PAIRS, Curve, Portrait

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #ffffff; --faint: #6a6a70; --rule: #dcdce0; --tint: #f4f4f6;
  --bar: #cfe3f5; --c0: #1764ab; --c1: #c2540a; --c2: #2a7f4f; --c3: #8a3c97; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --paper: #17171a; --faint: #a2a2aa; --rule: #3a3a40;
  --tint: #222226; --bar: #1d456a; --c0: #79b8ee; --c1: #f2a065; --c2: #7fd3a2; --c3: #d79be2; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--rule); }
h1, h2, h3 { line-height: 1.25; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem .3rem 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.bar { background: linear-gradient(90deg, var(--bar) var(--share), transparent var(--share)); padding-left: .4rem;
  min-width: 5rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; background: var(--tint); border-radius: .5rem; }
.glance { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.glance section { padding: .8rem 1rem; border: 1px solid var(--rule); border-top: 4px solid var(--c0);
  border-radius: .5rem; }
.glance h2 { margin: 0; border: 0; font-size: 1.2rem; overflow-wrap: anywhere; } .glance dl { margin: .5rem 0 0; }
.glance dt { color: var(--faint); font-size: .85rem; margin-top: .6rem; } .glance dd { margin: 0; }
.big { font-size: 2rem; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums; }
.gauge { height: .5rem; margin: .2rem 0 .3rem; background: linear-gradient(90deg, var(--c1) var(--share),
  var(--rule) var(--share)); border-radius: .25rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.pair div { font-size: .8rem; overflow-wrap: anywhere; }
img { width: 100%; height: auto; image-rendering: auto; border-radius: .25rem; display: block; }
svg { width: 100%; height: auto; } svg text { font-size: 10px; fill: var(--faint); }
.grid { stroke: var(--rule); } .change { stroke: var(--ink); stroke-width: 1.5; }
.line { fill: none; stroke-width: 2; } .c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); }
.key { display: inline-block; width: 1.4em; border-bottom: 3px solid; margin: 0 .5em .25em 0; }
.key.c0 { color: var(--c0); } .key.c1 { color: var(--c1); } .key.c2 { color: var(--c2); } .key.c3 { color: var(--c3); }
figcaption, .note { font-size: .85rem; color: var(--faint); overflow-wrap: anywhere; } code { overflow-wrap: anywhere; }
"""


def page(diagnosis: Diagnosis) -> str:
    """The whole page."""
    names = ", ".join(portrait.network for portrait in diagnosis.portraits)
    title = f"Shift fragility of {names}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="note">Pictures of {_text(diagnosis.folder)}; 95 % intervals over pictures in brackets.</p>',
        f'<div class="glance">{"".join(_glance(portrait) for portrait in diagnosis.portraits)}</div>',
        "<h2>All numbers</h2>",
        _summary(diagnosis),
        "<h2>Pictures on which one pixel matters most</h2>",
        '<p class="note">Two windows over the same picture, one pixel apart along the diagonal. The curves give the '
        "probability of each answer while the window moves; ticks below mark a change of the answer.</p>",
        *(_fragile(portrait) for portrait in diagnosis.portraits),
        "<h2>Where the networks alias</h2>",
        f'<p class="note">The first {AT_SITES} pictures at every place where samples are dropped. <b>Alias energy</b>: '
        "share of the energy of the map, without its mean, above what the coarser grid can hold. <b>Alias error</b>: "
        "distance of what comes out from ideal downsampling, relative to it; whatever the layer does besides sampling "
        "counts too, such as taking maxima. <b>Maximum-sampling bias</b>: how often the sample of the window "
        "nearest to the output is its maximum; chance is 25 % at stride 2.</p>",
        *(_sites(portrait) for portrait in diagnosis.portraits),
        "<h2>What anti-aliasing would replace</h2>",
        *(_conversion(portrait) for portrait in diagnosis.portraits),
        "<h2>How this was measured</h2>",
        _methods(diagnosis),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _summary(diagnosis: Diagnosis) -> str:
    table = diagnosis.table()
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{_text(measure)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        for measure, row in zip(table.index, table.to_numpy().tolist(), strict=True)
    )
    failed = "".join(
        f"<p><b>{_text(n)}</b> could not be measured: {_text(why)}</p>" for n, why in diagnosis.failed.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>{failed}'
    )


def _glance(portrait: Portrait) -> str:
    """The three answers: is it fragile, where does it alias, what would help."""
    change = portrait.top1_change
    answers = (
        (
            "Is it fragile? One pixel of shift changes its answer in",
            f'<div class="big">{100 * change.value:.1f} %</div>'
            f'<div class="gauge" style="--share:{100 * change.value:.1f}%"></div>'
            f"of the cases ({100 * change.low:.1f} to {100 * change.high:.1f}), {_ordinal(change.value)}",
        ),
        ("Where does it alias? The share of energy that the coarser grid cannot hold is largest at", _worst(portrait)),
        ("What would help?", _remedy(portrait)),
    )
    items = "".join(f"<dt>{question}</dt><dd>{answer}</dd>" for question, answer in answers)
    random = (
        "<p><b>These are random weights:</b> the numbers say nothing about a trained network.</p>"
        if "random" in portrait.weights
        else ""
    )
    return f"<section><h2>{_text(portrait.network)}</h2>{random}<dl>{items}</dl></section>"


def _ordinal(share: float) -> str:
    """A share as one case in so many."""
    return f"about one in {round(1 / share)}" if share else "none of those tried"


def _worst(portrait: Portrait, shown: int = 3) -> str:
    known = [site for site in portrait.sites if site.alias_energy.value == site.alias_energy.value]
    if not known:
        return "no place: it has no strided convolution, pool or downsampling layer"
    worst = sorted(known, key=lambda site: site.alias_energy.value, reverse=True)[:shown]
    rows = "".join(
        f"<li><code>{_text(site.name or '(root)')}</code> ({_text(site.module)}): "
        f"{100 * site.alias_energy.value:.0f} %</li>"
        for site in worst
    )
    return f"<ol>{rows}</ol>of {len(known)} places where samples are dropped"


def _remedy(portrait: Portrait) -> str:
    if isinstance(portrait.conversion, str):
        return f"Nothing to replace: {_text(portrait.conversion)}"
    layer, replaced = portrait.conversion.downsample, portrait.conversion.replaced
    plain = portrait.network.partition("+")[0]
    return (
        f"<b>{_text(layer)}</b> low-pass filters at {len(replaced)} places, weights kept, then a little fine-tuning: "
        f"<code>--compare {_text(plain)}+{_text(layer)}</code> shows what they do untrained"
    )


def _class(portrait: Portrait, index: int) -> str:
    names = portrait.class_names
    return names[index] if index < len(names) else f"class {index}"


def _fragile(portrait: Portrait) -> str:
    cards = "".join(_card(portrait, curve) for curve in portrait.curves)
    return f'<h3>{_text(portrait.network)}</h3><div class="cards">{cards}</div>'


def _card(portrait: Portrait, curve: Curve) -> str:
    windows = []
    for index, window in ((curve.step, curve.before), (curve.step + 1, curve.after)):
        answer = curve.answers[index]
        label = _class(portrait, answer)
        if answer in curve.classes:
            label += f", {100 * float(curve.probabilities[index, curve.classes.index(answer)]):.0f} %"
        where = shift(curve.positions[index])
        alt = f"{curve.name}, window at {where}: {label}"
        windows.append(f"<div>{picture(window, alt)}{_text(where)}: {_text(label)}</div>")
    labels = [_class(portrait, index) for index in curve.classes]
    legend = "".join(f'<br><span class="key c{number}"></span>{_text(label)}' for number, label in enumerate(labels))
    times = "once" if curve.changes == 1 else f"{curve.changes} times"
    return (
        f'<figure><div class="pair">{"".join(windows)}</div>{curve_svg(curve, labels)}'
        f"<figcaption>{_text(curve.name)}: the answer changes {times} in {len(curve.positions) - 1} steps. "
        f"{legend}</figcaption></figure>"
    )


def _sites(portrait: Portrait) -> str:
    if not portrait.sites:
        return f"<h3>{_text(portrait.network)}</h3><p>It has no strided convolution, pool or downsampling layer.</p>"
    errors = [site.alias_error.value for site in portrait.sites if site.alias_error.value == site.alias_error.value]
    largest = max(1.0, *errors) if errors else 1.0
    rows = "".join(
        f'<tr><th scope="row"><code>{_text(site.name or "(root)")}</code></th>'
        f"<td>{_text(site.module)}</td><td>{site.stride}</td>"
        + bar(site.alias_energy)
        + bar(site.alias_error, largest)
        + bar(site.max_bias)
        + "</tr>"
        for site in portrait.sites
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("site", "module", "stride", "alias energy", "alias error", "maximum-sampling bias")
    )
    return (
        f'<h3>{_text(portrait.network)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _conversion(portrait: Portrait) -> str:
    title = f"<h3>{_text(portrait.network)}</h3>"
    if isinstance(portrait.conversion, str):
        return f"{title}<p>{_text(portrait.conversion)}</p>"
    rows = "".join(
        f'<tr><th scope="row"><code>{_text(change.name or "(root)")}</code></th><td>{_text(change.what)}</td>'
        f"<td>{what}: {_text(change.note)}</td></tr>"
        for what, changes in (("replaced", portrait.conversion.replaced), ("left", portrait.conversion.left))
        for change in changes
    )
    return (
        f'{title}<div class="scroll"><table><thead><tr><th scope="col">module</th><th scope="col">what it is</th>'
        f'<th scope="col">with {_text(portrait.conversion.downsample)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="note">Weights are kept. Afterwards re-estimate the batch-norm statistics with one pass over '
        "training images, then fine-tune with a small learning rate, and diagnose again: "
        f"<code>aliasing diagnose {_text(portrait.network)} --compare {_text(portrait.network.partition('+')[0])}+"
        f"{_text(portrait.conversion.downsample)} --images ...</code></p>"
    )


def _methods(diagnosis: Diagnosis) -> str:
    facts = [
        f"One pixel: a random crop of each picture is resized to a little more than the input, and the window over it "
        f"moves by one pixel along the diagonal (Azulay and Weiss 2019, crop protocol); {PAIRS} pairs per picture.",
        "Consistency: how often two random shifts of a picture get the same answer (Zhang 2019). Crop shifts move the "
        "window over a larger picture; standard shifts move the picture and fill with black.",
        f"Device {diagnosis.device}; aliasing {diagnosis.versions['aliasing']}, torch {diagnosis.versions['torch']}; "
        + ", ".join(f"{portrait.network} {portrait.seconds:.0f} s" for portrait in diagnosis.portraits)
        + ". Every draw comes from a generator with a fixed seed, the same for every network.",
    ]
    items = "".join(f"<li>{_text(fact)}</li>" for fact in facts)
    items += "".join(
        f"<li>{_text(p.network)}: {_text(p.weights)}, crop shifts up to {p.margin} pixels.</li>"
        for p in diagnosis.portraits
    )
    if diagnosis.skipped:
        broken = "".join(
            f"<li><code>{_text(name)}</code>: {_text(why)}</li>" for name, why in diagnosis.skipped.items()
        )
        items += f"<li>Pictures that could not be read and were skipped: <ul>{broken}</ul></li>"
    return f"<ul>{items}</ul>"
