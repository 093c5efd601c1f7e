"""`lrpjax simulate`: convergence of chains of random matrices, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._base.text import columns
from .common import INTERRUPTED, JsonOption, say, writable, write_json

STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16)  # that the table shows


def simulate(
    repetitions: Annotated[int, typer.Option(help="Draws of all matrices.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the random matrices and vectors.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and figures.")] = Path(
        "lrpjax-simulate"
    ),
    json_file: JsonOption = None,
) -> None:
    """Which rules converge on random matrices with VGG-16's shapes, and how fast?

    Follows random relevance vectors through 16 matrices of each kind (plain, positive,
    alpha-beta, ...) and measures how far they have become parallel after each. Two controls, with
    square matrices and with permutations, must not converge.
    """
    import jax

    from ..convergence import Simulation
    from ..convergence import simulate as run
    from ..report import plots

    writable(out)
    results = out / "results.json"
    result = Simulation({"repetitions": 0}, [])

    def keep(found: Simulation) -> None:
        nonlocal result
        result = Simulation({**found.settings, "seed": seed}, found.rows)
        result.save(results)

    try:
        run(key=jax.random.key(seed), repetitions=repetitions, finished=keep)
    except KeyboardInterrupt:
        done = result.settings["repetitions"]
        say(f"Interrupted: {done} of {repetitions} repetitions finished and saved.")
        raise typer.Exit(INTERRUPTED) from None
    say(_table(result))
    say(f"\n{_rates(result)}")
    write_json(json_file, result.settings, result.rows)
    files = plots.save(result.plot(), out / "simulation")
    say(f"\nFigures: {', '.join(map(str, files))}\nResults: {results}")


def _table(result: Any) -> str:
    table = []
    for case in dict.fromkeys(row["case"] for row in result.rows):
        own = {row["step"]: row for row in result.rows if row["case"] == case}
        shown = {str(step): _number(own[step]["one_minus_mean"]) for step in STEPS}
        table.append({"case": case, **shown, "nan": f"{own[STEPS[-1]]['nan_share']:.0%}"})
    return (
        "1 - mean |cosine| of random relevance after that many factors (median of "
        f"{result.settings['repetitions']} repetitions)\n\n{columns(table)}\n\n"
        "nan: pairs without an angle at the end, as a vector was zero; below 1e-28 is rounding"
    )


def _rates(result: Any) -> str:
    """Measured and predicted shrinking of 1 - |cos|, one line for each dimension summed over."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in result.rows:
        if row["law"] is not None and row["rate"] is not None:
            found.setdefault((row["case"], row["summed"]), []).append((row["rate"], row["law"]))
    table = [
        {
            "case": case,
            "summed": str(summed),
            "factors": str(len(pairs)),
            "measured": _number(sum(rate for rate, _ in pairs) / len(pairs)),
            "law": _number(pairs[0][1]),
        }
        for (case, summed), pairs in found.items()
    ]
    return f"What one factor leaves of 1 - |cosine|, and the law (s^2/m^2)/n\n\n{columns(table)}"


def _number(value: float | None) -> str:
    if value is None:
        return "nan"
    text = f"{value:.2f}" if value >= 0.1 else f"{value:.1e}"
    return text.replace("e-0", "e-")
