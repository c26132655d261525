"""Augment a few sentences in your own process, without Ray and without files.

    .venv/bin/python examples/augment_texts.py

It uses the embedded models, so nothing is downloaded. The same texts, options and seed always give the same samples.
"""

from __future__ import annotations

from augment_service import Augmenter

TEXTS = ["a gripping and honest film", "the plot is dull, but the actors save it"]


def main() -> None:
    # Loads the masked LM and the word vectors once; keep the object for as long as you need it.
    augmenter = Augmenter("embedded")

    # n_a: samples per text. A short text may have fewer distinct variations. filter: whole words only, no punctuation.
    results = augmenter.augment(TEXTS, n_a=3, seed=7, filter="whole-words")
    for text, result in zip(TEXTS, results, strict=True):
        print(text)
        for sample in result.samples:
            # A sample prints as its text; `replaced` says which words changed and where.
            changes = ", ".join(f"{one.word} -> {one.candidate}" for one in sample.replaced)
            print(f"  {sample}   ({changes})")


if __name__ == "__main__":
    main()
