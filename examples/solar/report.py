"""The report of a finished run: tables for the terminal, and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scythe.experiments import ExperimentRun

COLUMNS = {  # column: (heading, unit, format)
    "tilt": ("tilt", "deg", "{:.4g}"),
    "azimuth": ("azimuth", "deg", "{:.4g}"),
    "dc_ac_ratio": ("DC/AC", "-", "{:.2f}"),
    "annual_yield": ("annual yield", "kWh", "{:,.0f}"),
    "specific_yield": ("specific yield", "kWh/kWp", "{:,.0f}"),
    "performance_ratio": ("performance ratio", "-", "{:.3f}"),
    "clipping_loss": ("clipping", "%", "{:.2f}"),
}
MOST_NUMBERS = 100  # a map with more cells than that has no numbers in them
MOST_TICKS = 9  # of our own; matplotlib chooses where there would be more


def read_scalars(run: ExperimentRun) -> pd.DataFrame:
    """Return inputs and outputs of all designs that ended well, side by side."""
    return run.results("scalars").to_pandas().reset_index()


def print_report(run: ExperimentRun, scalars: pd.DataFrame) -> None:
    """Print the best designs, where the leaves ran, and where the results are."""
    print("\nThe best of all designs:\n")
    print_table(scalars.nlargest(5, "specific_yield"))
    print("\nThe best orientation for each size of the inverter:\n")
    print_table(scalars.loc[scalars.groupby("dc_ac_ratio")["specific_yield"].idxmax()])
    print(f"\n{describe_leaves(run)}")
    tables = ", ".join(f"{name}.pq" for name in sorted(run.list_results_files()))
    print(f"\nThe tables: {run.as_uri(run.final_results_dirkey)}\n  {tables}")


def print_table(designs: pd.DataFrame) -> None:
    """Print designs as a table with units."""
    rows = [[heading for heading, _, _ in COLUMNS.values()]]
    rows.append([f"[{unit}]" for _, unit, _ in COLUMNS.values()])
    for design in designs[list(COLUMNS)].itertuples(index=False):
        formats = (form for _, _, form in COLUMNS.values())
        rows.append([form.format(value) for form, value in zip(formats, design, strict=True)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))


def describe_leaves(run: ExperimentRun) -> str:
    """Say in how many processes the leaves ran, and how long each took."""
    leaves = run.results("leaves").to_pandas().reset_index()
    pids = sorted(leaves["pid"].unique())
    shown = ", ".join(str(pid) for pid in pids[:4]) + (", ..." if len(pids) > 4 else "")
    together = (leaves["finished"].max() - leaves["started"].min()).total_seconds()
    return (
        f"{_count(len(leaves), 'leaf', 'leaves')} ran in "
        f"{_count(len(pids), 'process', 'processes')} (pid {shown}) "
        f"on {_count(leaves['node'].nunique(), 'node', 'nodes')}: "
        f"{leaves['seconds'].median():.2f} s each (median), {together:.1f} s in all."
    )


def print_errors(run: ExperimentRun) -> None:
    """Print why leaves failed: the first of each kind, with how many there are."""
    errors = run.errors().to_pandas().reset_index()
    for (kind, name), group in errors.groupby(["kind", "type"]):
        print(f"  {len(group)} x {kind}, {name}: {group['message'].iloc[0]}")


def draw_map(scalars: pd.DataFrame, site: str, path: Path) -> None:
    """Draw the specific yield over tilt and azimuth, one map for each size of the inverter."""
    maps = list(_maps(scalars))
    colors = Normalize(scalars["specific_yield"].min(), scalars["specific_yield"].max())
    figure = Figure(figsize=(1.5 + 4.2 * len(maps), 4.6), layout="constrained")
    axes = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axis, (ratio, cells) in zip(axes, maps, strict=True):
        right, top = _edges(cells.columns), _edges(cells.index)
        axis.pcolormesh(right, top, cells.to_numpy(), norm=colors)
        _frame_best(axis, cells, right, top)
        _write_numbers(axis, cells, colors)
        axis.set_title(f"DC/AC = {ratio:.2f}")
        axis.set_xlabel("azimuth [deg]  (90 east, 180 south)")
        if len(cells.columns) <= MOST_TICKS:
            axis.set_xticks(cells.columns)
        if len(cells.index) <= MOST_TICKS:
            axis.set_yticks(cells.index)
    axes[0].set_ylabel("tilt [deg]")
    figure.colorbar(ScalarMappable(colors), ax=list(axes), label="specific yield [kWh/kWp]")
    figure.suptitle(f"Photovoltaic yield in a typical year: {site}  (framed: the best)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _maps(scalars: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    for ratio, group in scalars.groupby("dc_ac_ratio"):
        yield ratio, group.pivot_table("specific_yield", index="tilt", columns="azimuth")


def _edges(centres: pd.Index) -> np.ndarray:
    """Return where the cells around these centres begin and end: one number more."""
    values = centres.to_numpy()
    half = np.diff(values) / 2 if len(values) > 1 else np.array([5.0])
    return np.concatenate(
        [[values[0] - half[0]], values[:-1] + half[: len(values) - 1], [values[-1] + half[-1]]]
    )


def _frame_best(axis: Axes, cells: pd.DataFrame, right: np.ndarray, top: np.ndarray) -> None:
    row, column = np.unravel_index(np.nanargmax(cells.to_numpy()), cells.shape)
    corner = (right[column], top[row])
    width, height = right[column + 1] - right[column], top[row + 1] - top[row]
    axis.add_patch(Rectangle(corner, width, height, fill=False, linewidth=2))


def _write_numbers(axis: Axes, cells: pd.DataFrame, colors: Normalize) -> None:
    if cells.size > MOST_NUMBERS:
        return
    for (tilt, azimuth), value in cells.stack().items():
        color = "white" if colors(value) < 0.5 else "black"
        axis.text(azimuth, tilt, f"{value:.0f}", ha="center", va="center", size=7, color=color)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
