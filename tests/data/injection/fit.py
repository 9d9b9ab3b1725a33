"""Fit the weights of the detector of 19.7.2 to the corpora beside this file, and print them: `python FILE`.

Logistic regression with an L2 penalty over the classes of words that are present, and the number of words of none.
A text counts by its strongest two neighbouring sentences, which are chosen anew after each fit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "part_5_production" / "chapter_19_deployment"))
from disguises import fold  # noqa: E402  (found by the line above)
from injection_detector import CLASSES, neighbours, read, with_owners  # noqa: E402  (the same)

PENALTY = 2.0
TENTHS = 10  # the table holds tenths of a unit of log-odds
MARGIN = 6  # an innocent text that is turned away costs more than an attack that goes on to the other defences
LETTERS = [*(letter for letter in CLASSES if letter != "x"), '"']  # single letters are what mathematics is made of
UNKNOWN_WORDS = 10  # that many count as one


def main() -> None:
    """Print the table."""
    weights, needed, unknown = fitted()
    print(" ".join(f"{letter}{weight:+d}" for letter, weight in weights.items() if weight))
    print(f"NEEDED, UNKNOWN = {needed}, {unknown}")


def fitted() -> tuple[dict[str, int], int, int]:
    """Return the weight of each letter, what a text needs to count as an attack, and the weight of ten other words."""
    texts, labels = [], []
    for path in sorted(HERE.glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                label = line.startswith("# attack")
            elif line:
                texts.append(features(line))
                labels.append(label)
    weights = fit(texts, np.array(labels, dtype=float))
    *each, unknown, bias = np.rint(TENTHS * weights).astype(int).tolist()
    return dict(zip(LETTERS, each, strict=True)), MARGIN - bias, unknown


def features(text: str) -> np.ndarray:
    """Return one row for every two neighbouring sentences of a text: 0 or 1 per class, then other words in tens."""
    folded = fold(text)
    line = with_owners(read(folded)[1])
    windows = [line[start:end] for start, end in neighbours(line)] or [""]
    quoted = '"' in folded
    return np.array(
        [
            [letter in window or (letter == '"' and quoted) for letter in LETTERS] + [window.count("-") / UNKNOWN_WORDS]
            for window in windows
        ],
        dtype=float,
    )


def fit(texts: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return a weight for every letter, and the bias last."""
    rows = np.array([text.max(0) for text in texts])
    for _ in range(8):
        weights = regress(rows, labels)
        rows = np.array([text[np.argmax(text @ weights[:-1])] for text in texts])
    return weights


def regress(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Newton's method; the bias is not penalised."""
    rows = np.c_[rows, np.ones(len(rows))]
    penalty = PENALTY * np.diag([1.0] * (rows.shape[1] - 1) + [1e-6])
    weights = np.zeros(rows.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (chance - labels) + penalty @ weights
        weights -= np.linalg.solve((rows.T * (chance * (1 - chance))) @ rows + penalty, slope)
    return weights


if __name__ == "__main__":
    main()
