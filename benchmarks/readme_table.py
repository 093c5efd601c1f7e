"""The README's tables: of what is covered, of methods with the results of `lrpjax csc`, and of the
verdicts of `lrpjax audit`.

lrpjax csc --out csc && lrpjax audit --out audit
python benchmarks/readme_table.py csc/results.json audit/audit.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lrpjax.convergence import CSC
from lrpjax.methods.lookup import TABLE
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


def verdicts(file: str) -> list[str]:
    """From the JSON of `lrpjax audit`."""
    lines = [
        "| method | verdict | why | another class | last layer random | all random |",
        "|---|---|---|---|---|---|",
    ]
    number = lambda value: "" if value is None else f"{value:.2f}"
    for row in json.loads(Path(file).read_text())["summary"]:
        scores = [number(row[k]) for k in ("random_logit", "mprt_first", "mprt_last")]
        lines.append(f"| {' | '.join([row['method'], row['level'], row['verdict'], *scores])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    parser.add_argument("audit")
    options = parser.parse_args()
    result = CSC.load(options.results)
    measured = {
        row["method"]: row["one_minus_median"] for row in result.rows if row["layer"] == "input"
    }
    print("\n".join([*covered(), "", *rows(measured), "", *verdicts(options.audit)]))


if __name__ == "__main__":
    main()
