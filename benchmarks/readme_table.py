"""The README's tables: of what is covered, and of methods with the results of `lrpjax csc`.

lrpjax csc --out csc && python benchmarks/readme_table.py csc/results.json
"""

from __future__ import annotations

import argparse

from lrpjax.convergence import CSC
from lrpjax.methods import TABLE
from lrpjax.rules import coverage


def covered() -> list[str]:
    lines = ["| kind | read from | what LRP does |", "|---|---|---|"]
    return lines + [f"| {r['kind']} | {r['primitives']} | {r['lrp']} |" for r in coverage()]


def rows(measured: dict[str, float]) -> list[str]:
    lines = [
        "| method | formula | source | conserves | converges in theory | 1 - CSC |",
        "|---|---|---|---|---|---|",
    ]
    for name, e in TABLE.items():
        formula = e.formula.replace("|", "\\|")
        found = f"{measured[name]:.0e}".replace("e-0", "e-") if name in measured else ""
        lines.append(
            f"| {name} | {formula} | {e.source} | {e.conserves} | {e.converges} | {found} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    result = CSC.load(parser.parse_args().results)
    measured = {
        row["method"]: row["one_minus_median"] for row in result.rows if row["layer"] == "input"
    }
    print("\n".join([*covered(), "", *rows(measured)]))


if __name__ == "__main__":
    main()
