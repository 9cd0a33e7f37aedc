"""How time and memory grow with pixels, batch and layers: a plot beside the table."""

# What draws is installed for the benchmark alone.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from dev import host as hosts
from lib_layerdiffuse.nets.eight_passes import estimate_rgba

from .decode import new_decoder, pictures
from .measure import Cost, Machine, Work, cost
from .pixels import stack
from .table import Row

PLOT = hosts.ROOT / "docs" / "growth.svg"
SIDES, BATCHES, LAYERS = (128, 256, 512, 1024), (1, 2, 4, 8), (1, 2, 4, 8, 16)
BATCH_SIDE, LAYER_SIDE = 256, 1024


def rows(machine: Machine) -> Iterator[Row]:
    decoder = new_decoder(machine)

    def decode(side: int, count: int) -> Work:
        return partial(estimate_rgba, decoder, *pictures(machine, side, count), 1)

    def composite(count: int) -> Work:
        return stack(machine, LAYER_SIDE, count).flatten

    series: list[tuple[str, str, dict[float, Cost]]] = []
    for title, unit, points in (
        ("decode of one picture, one pass", "megapixels", {side**2 / 1e6: partial(decode, side, 1) for side in SIDES}),
        (f"decode at {BATCH_SIDE}x{BATCH_SIDE}, one pass", "pictures", {count: partial(decode, BATCH_SIDE, count) for count in BATCHES}),
        (f"composite at {LAYER_SIDE}x{LAYER_SIDE}", "layers", {count: partial(composite, count) for count in LAYERS}),
    ):
        found = {}
        for amount, prepare in points.items():
            found[amount] = cost(prepare(), repeats=2)
            yield Row(f"{title}: {amount:.3g} {unit}", found[amount])
        series.append((title, unit, found))
    _plot(series)


def _plot(series: list[tuple[str, str, dict[float, Cost]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(series), figsize=(10, 5), layout="constrained")
    for column, (title, unit, found) in enumerate(series):
        amounts = list(found)
        values = [cost.seconds for cost in found.values()], [(cost.peak or 0) / 2**20 for cost in found.values()]
        for axis, name, measured in zip(axes[:, column], ("seconds", "MiB at the peak"), values, strict=True):
            axis.plot(amounts, measured, "o-", color="#2f6f8f")
            axis.plot(amounts, [measured[0] * amount / amounts[0] for amount in amounts], ":", color="#999999")
            axis.set(xscale="log", yscale="log", xlabel=unit, ylabel=name, xticks=amounts, xticklabels=[f"{a:.2g}" for a in amounts])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[0, column].set_title(title)
    figure.savefig(PLOT, metadata={"Date": None})
