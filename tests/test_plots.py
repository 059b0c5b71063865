"""What the chapters draw with: colours that are seen in the light and in the dark, intervals, badges, walks."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from aliasing import plots
from aliasing.errors import UsageError
from aliasing.metrics import Estimate
from aliasing.plots import COLOURS, MARKERS

DARK = to_rgb("#121212")  # the theme's background
# hue-rotate(180deg) as the filter-effects specification writes it, behind invert(1).
TURNED = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])


def luminance(colour):
    colour = np.asarray(colour)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(first, second):
    """As WCAG 2 defines it, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_every_method_can_be_seen_in_the_light_and_in_the_dark_and_has_looks_of_its_own():
    names = [*COLOURS, *(f"of my own {number}" for number in range(12))]  # a layer in no list gets looks that stay
    looks = {name: (COLOURS[name], MARKERS[name]) for name in names}
    assert looks == {name: (COLOURS[name], MARKERS[name]) for name in names}
    assert len({colour for colour, _ in looks.values()}) == len(names)
    for name, (hexadecimal, _) in looks.items():
        colour = np.array(to_rgb(hexadecimal))
        assert contrast(colour, (1, 1, 1)) > 2.3, name
        assert contrast(np.clip(TURNED @ (1 - colour), 0, 1), DARK) > 2.3, name


ROWS = pd.DataFrame(
    [
        {"layer": layer, "augmented": augmented, "setting": f"{layer} {augmented}", "seed": seed, "x": x + 0.01 * seed}
        | {"y": 1 - x, "curve": [x, x + seed]}
        for layer, x in (("subsample", 0.5), ("bin-5", 0.7))
        for augmented in (False, True)
        for seed in range(3)
    ]
).assign(data="shapes", network="vgg", device="cpu", profile="laptop", plain="plain network 50.0 % accurate")


def test_groups_have_a_label_and_a_look():
    found = plots.groups(ROWS, ["layer", "augmented"])
    assert [group.label for group in found] == ["subsample", "subsample, augmented", "bin-5", "bin-5, augmented"]
    assert found[2].look["color"] == COLOURS["bin-5"] == found[3].look["color"]
    assert found[3].look["markerfacecolor"] == "none" and "markerfacecolor" not in found[2].look


@pytest.mark.parametrize(("rows", "words"), [(ROWS[~ROWS["augmented"]], "wxyz"), (ROWS, "wx")])
def test_groups_that_differ_in_words_look_different_augmented_or_not(rows, words):
    rows, by = pd.concat([rows.assign(network=name) for name in words]), ["layer", "network", "augmented"]
    figure, axes = plots.grid(1, 3)
    plots.points(axes[0], rows, "x", "y", by)
    plots.bars(axes[1], rows, {"the x": "x"}, by)
    plots.bands(axes[2], rows, "curve", by)
    marks = [handle[0] for handle in axes[0].get_legend_handles_labels()[0]]
    faces = [(one.get_markerfacecolor(), one.get_markerfacecoloralt(), one.get_fillstyle()) for one in marks]
    assert len({(one.get_color(), *face) for one, face in zip(marks, faces, strict=True)}) == len(marks) == 8
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in axes[1].patches}) == 8
    assert len({(line.get_color(), line.get_linestyle()) for line in axes[2].lines}) == 8
    plots.show(figure, "", "")


def test_bands_points_and_bars_show_means_and_leave_out_what_was_not_measured():
    figure, (left, middle, right) = plots.grid(1, 3)
    plain = ROWS[~ROWS["augmented"]]
    plots.bands(left, plain, "curve")
    plots.bands(left, plain, "not measured")
    assert np.allclose([line.get_ydata() for line in left.lines], [[0.5, 1.5], [0.7, 1.7]])
    plots.points(middle, plain, "x", "y", scale=100)
    marks = [line for line in middle.lines if line.get_label() in ("subsample", "bin-5") or line.get_markersize() == 8]
    assert sorted(float(line.get_xdata()[0]) for line in marks) == pytest.approx([51, 71])
    plots.bars(right, plain, {"the x": "x", "not measured": "z"})
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0.51, 0.71])
    plots.show(figure, "", "")


def test_what_one_part_of_a_figure_lacks_is_in_its_legend_and_what_is_below_zero_in_its_frame():
    odd = ROWS[~ROWS["augmented"]].assign(other=lambda t: t["curve"], minus=lambda t: -t["x"])
    lacks = odd["layer"] == "subsample"
    odd.loc[lacks, "curve"] = odd.loc[lacks, "x"] = None
    figure, axis = plots.grid()
    plots.bars(axis, odd, {"x": "x", "minus": "minus"})
    assert axis.get_legend_handles_labels()[1] == ["subsample", "bin-5"] and axis.get_ylim()[0] < odd["minus"].min()
    plots.show(figure, "", "")
    figure = plots.panels(odd, {"left": "curve", "right": "other"})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bin-5", "subsample"]
    figure = plots.panels(odd.assign(all=1), {"left": "curve", "right": "other"}, ["all", "layer"])
    lines = [line for axis in figure.axes for line in axis.lines if "bin-5" in line.get_label()]
    assert [line.get_linestyle() for line in lines] == ["--"] * 2
    plots.show(figure, "", "")


def test_curves_may_have_gaps_but_must_lie_over_the_same_points():
    mean, *_ = plots.across([[1, None, 3], [2, 2, 4]])
    assert np.array_equal(mean, [1.5, np.nan, 3.5], equal_nan=True)
    _, axis = plots.grid()
    plain = ROWS[~ROWS["augmented"]]
    odd = plain.assign(place=[[seed, 9] for seed in plain["seed"]])
    wrong = {
        r"equally many points, at least one, got \[1, 2\]": lambda: plots.across([[1], [1, 2]]),
        r"at least one, got \[0\]": lambda: plots.across([[], []]),
        "'subsample' has curves over different place; draw": lambda: plots.bands(axis, odd, "curve", x="place"),
    }
    for message, draw in wrong.items():
        with pytest.raises(UsageError, match=message):
            draw()
    plots.show(axis.figure, "", "")


def test_two_seeds_are_drawn_and_told_one_by_one_since_their_interval_says_nothing():
    two = ROWS[(ROWS["seed"] < 2) & ~ROWS["augmented"]]
    for rows, shown in ((ROWS[~ROWS["augmented"]], "95 % intervals over seeds"), (two, "fewer than three")):
        figure, axes = plots.grid(1, 4)
        plots.bands(axes[0], rows, "curve")
        plots.points(axes[1], rows, "x", "y")
        plots.bars(axes[2], rows, {"x": "x"})
        plots.forest(axes[3], rows, "x", minus="subsample")
        assert shown in plots.show(figure, "", "").caption
        assert plots.show(figure, "", "").caption.count("Faint") == 1
        assert ("seeds." in plots.show(figure, "", "").caption) is (rows is not two)
        faint = [[line for line in axis.lines if line.get_gid() in ("each", "few")] for axis in axes]
        for axis, lines in zip(axes, faint, strict=True):  # none is cut
            bottom, top = sorted(axis.get_ylim())
            assert all(bottom <= value <= top for line in lines for value in line.get_ydata())
        assert [len(lines) for lines in faint] == ([4, 2, 2, 1] if rows is two else [0, 2, 0, 0])
    mean, low, high = plots.across(two["curve"].head(2))
    assert (mean == low).all() and (mean == high).all()
    told = [plots.interval(pd.Series(values)) for values in ([], [0.5], [0.5, 0.6], [0.5, 0.6, 0.7])]
    assert told == ["", "50.0", "50.0,\N{NO-BREAK SPACE}60.0", "60.0 ±\N{NO-BREAK SPACE}24.8"]
    assert plots.interval(Estimate(0.5, 0.25, 0.75, 9), "+") == "+50.0 (+25.0 to +75.0)"


def test_a_forest_pairs_by_seed():
    figure, axis = plots.grid()
    plots.forest(axis, ROWS[~ROWS["augmented"]], "x", minus="subsample")
    assert [text.get_text() for text in axis.get_yticklabels()] == ["bin-5"]
    (point,) = [line for line in axis.lines if len(line.get_xdata()) == 1 and line.get_marker() == MARKERS["bin-5"]]
    assert float(point.get_xdata()[0]) == pytest.approx(0.2)
    plots.show(figure, "", "")


def test_spread_is_over_seeds_of_runs_that_all_have_a_group():
    _, axis = plots.grid()
    unnamed = ROWS.assign(layer=ROWS["layer"].where(ROWS["seed"] > 0))
    for rows, said in ((ROWS, "'subsample' has several networks of seed 0"), (unnamed, "4 of 12 runs have no layer")):
        for draw in (
            lambda rows: plots.bands(axis, rows, "curve"),
            lambda rows: plots.points(axis, rows, "x", "y"),
            lambda rows: plots.bars(axis, rows, {"x": "x"}),
            lambda rows: plots.forest(axis, rows, "x", minus="subsample"),
        ):
            with pytest.raises(UsageError, match=said):
                draw(rows)
    plots.show(axis.figure, "", "")


def test_panels_that_share_an_axis_show_all_or_say_what_is_cut():
    figure, axes = plots.grid(1, 2, sharey=True)
    for axis, more in zip(axes, (0, 10), strict=True):
        plots.points(axis, ROWS.assign(y=ROWS["y"] + more), "x", "y", ["layer", "augmented"])
    low, high = axes[0].get_ylim()
    assert low < ROWS["y"].min() and high > ROWS["y"].max() + 10
    assert "cut" not in plots.show(figure, "", "").caption
    axes[0].set_xlim(0.6, 1)
    assert "Those that leave the frame are cut." in plots.show(figure, "", "").caption


def test_a_figure_says_on_which_evidence_it_stands():
    html = plots.show(plots.grid()[0], "a < b", 'x "y"', ROWS)._repr_html_()
    assert 'alt="x &#34;y&#34;"' in html and "<figcaption>a &lt; b" in html
    assert "vgg on shapes (plain network 50.0 % accurate) · 3 seeds · cpu · profile laptop" in html
    others = plots.badge(ROWS[ROWS["seed"] == 0].assign(**{"training.images": 0}))  # nothing was drawn
    assert "seed" not in others and "accurate) · cpu" in others
    assert "· 2 to 3 seeds · cpu" in plots.badge(ROWS.drop(index=0))  # a network has a seed that another lacks
    assert "of 3 seeds" not in plots.show(plots.grid()[0], "", "")._repr_html_()
    assert "Not on record" in plots.show(plots.grid()[0], "", "", ROWS.iloc[:0])._repr_html_()
    assert "profile laptop" in plots.table(ROWS[["layer", "x"]], "", ROWS)._repr_html_()


def test_a_walk_is_a_still_figure_first_and_its_steps_do_not_end_the_script():
    still = plots.Captioned("data:image/png;base64,AA==", "", "still", "chart")
    steps = {"one </script>": plots.Captioned("data:image/png;base64,BB==", "", 'first "a"'), "two": still}
    html = plots.Walk(still, steps, "layer", "a caption")._repr_html_()
    assert re.search(r'id="walk-\w+-still"><img src="data:image/png;base64,AA==" alt="still">', html)
    assert re.search(r'<div id="walk-\w+" class="walk" hidden>', html)
    assert '<label>layer <input type="range" min="0" max="1" value="0" step="1"></label>' in html
    found = json.loads(re.search(r"steps = (\[.*?\]);\n", html)[1])
    assert [(step["name"], step["alt"]) for step in found] == [("one </script>", 'first "a"'), ("two", "still")]
    assert html.count("</script>") == 1 and "http" not in html


def test_a_drawing_is_the_same_bytes_where_its_layout_differs_in_the_last_bit():
    def drawn(left):
        figure, axis = plots.grid()
        figure.set_layout_engine("none")
        axis.set_position([left, 0.1, 0.8, 0.8])
        axis.plot([0, 1], [0, 1], "o-")
        return plots.show(figure, "", "").image

    assert drawn(0.13) == drawn(np.nextafter(0.13, 1))
