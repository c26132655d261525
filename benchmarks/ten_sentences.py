"""Candidates of the embedded masked LM compared with human-approved words. Prints the model card's tables.

The sentences were chosen before the first model ran. One person, who had seen the candidates of an earlier model,
listed the accepted words: those that keep the sentence sensible, though not always its meaning. Such a list is never
complete, so the count is a lower bound.

    python benchmarks/ten_sentences.py [--mlm embedded]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

K = 8
SENTENCES: dict[str, dict[str, str]] = {
    "The train to London leaves at seven in the morning.": {
        "train": "bus coach flight plane express ferry tram boat shuttle service",
        "london": "paris manchester edinburgh oxford york berlin dublin glasgow cambridge brighton leeds bristol",
        "leaves": "departs goes starts arrives left departed runs comes returns stops",
        "seven": "six eight nine five ten four eleven three two one twelve",
        "morning": "evening afternoon night dark summer winter",
    },
    "She opened the door and found an old letter on the table.": {
        "opened": "closed unlocked entered shut pushed answered locked knocked",
        "door": "drawer box room window envelope gate house cabinet safe",
        "found": "saw noticed discovered spotted left put read placed dropped laid",
        "old": "unopened open ancient important unread odd anonymous empty unsigned early",
        "letter": "envelope newspaper photograph album book note card map address article",
        "table": "desk floor chair bed shelf counter windowsill mat carpet stairs",
    },
    "The film is a boring story with terrible acting.": {
        "film": "movie picture show play book sequel result remake drama comedy",
        "boring": "dull tedious bad silly weak slow stupid predictable good great simple",
        "story": "movie film tale mess plot drama comedy picture thriller melodrama",
        "terrible": "bad awful poor horrible dreadful wooden good great excellent bland",
        "acting": "performances actors dialogue characters effects direction writing music dialog casting",
    },
    "Our waiter was friendly and the soup tasted great.": {
        "waiter": "waitress host server hostess guide driver hotel restaurant barman chef",
        "friendly": "nice polite kind helpful attentive good pleasant quick great lovely",
        "soup": "food wine fish meal coffee meat beer bread steak dessert salad tea",
        "tasted": "was smelled looked felt",
        "great": "good delicious wonderful excellent nice amazing fine fresh terrible awful better",
    },
    "The company reported higher profits in the second quarter.": {
        "company": "bank firm group retailer airline corporation business manufacturer",
        "reported": "announced posted had made expected recorded claimed showed saw earned",
        "higher": "record lower increased rising strong better large big improved good",
        "profits": "sales earnings revenues prices losses income profit revenue costs returns",
        "second": "first third fourth last next previous final fiscal current",
        "quarter": "half year month week period season decade",
    },
    "He plays the piano every evening before dinner.": {
        "plays": "played practices practises enjoys tunes teaches studies practiced uses",
        "piano": "guitar violin flute organ drums harp trumpet game cello keyboard",
        "every": "each one all most in that this",
        "evening": "day night afternoon sunday week morning time weekend saturday friday",
        "dinner": "supper bed lunch breakfast work school eating sleep church",
    },
    "Doctors say the new drug may reduce pain.": {
        "doctors": "scientists researchers they some experts many physicians studies patients people",
        "say": "believe think said claim hope suggest report agree know",
        "new": "same experimental latest old right first powerful",
        "drug": "treatment medicine drugs therapy medication method pill device technique vaccine",
        "may": "can could will might should would to does",
        "reduce": "cause relieve ease kill increase treat prevent stop lessen control produce",
        "pain": "symptoms inflammation stress anxiety swelling fever cancer disease depression infection",
    },
    "The river flows through a small town near the mountains.": {
        "river": "stream road creek railway highway water trail path train canal",
        "flows": "runs passes goes ran flowed winds passed moves falls",
        "small": "little large quiet tiny beautiful big narrow mountain new pretty",
        "town": "village valley city forest lake area gorge park canyon settlement",
        "near": "in by below between under among beside beneath around across",
        "mountains": "coast sea border hills lake mountain river ocean beach city forest",
    },
    "My phone stopped working after two weeks.": {
        "phone": "computer car camera laptop tv watch heart printer radio machine",
        "stopped": "quit started began kept was",
        "working": "ringing charging again functioning out up",
        "two": "three several few six four many five some 2 ten",
        "weeks": "months days years hours minutes calls",
    },
    "The president signed the law on Friday.": {
        "president": "governor king senate government minister mayor congress prime queen parliament",
        "signed": "passed approved announced enacted issued vetoed enforced proposed changed made",
        "law": "bill agreement treaty contract order act deal letter document constitution",
        "friday": "monday tuesday wednesday thursday saturday sunday",
    },
}


def main() -> None:
    """Print the tables and how many candidates are among the accepted words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mlm", default="embedded")
    model = parser.parse_args().mlm

    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from augment_service.engine.masked_lm import MaskedLM
    from shared.params import AugmentParams

    params = AugmentParams(filter="whole-words", k=K)
    engine = AugmentEngine(MaskedLM.load(model, "cpu", "fp32"), GloveVectors.load("embedded"), params)
    hits = firsts = total = words = 0
    for sentence, accepted in SENTENCES.items():
        print(f"*{sentence}*\n\n| word | candidates | a person would accept |\n|---|---|---|")
        found = engine.propose([sentence])[0]
        for site in found.proposals:
            word = found.words[site.word_index].text.lower()
            known = set(accepted[word].split())
            inside = [candidate in known for candidate in site.candidates]
            hits, total = hits + sum(inside), total + len(inside)
            firsts, words = firsts + any(inside), words + 1
            marked = (f"**{one}**" if hit else one for one, hit in zip(site.candidates, inside, strict=True))
            print(f"| {word} | {', '.join(marked)} | {', '.join(accepted[word].split())} |")
        print()
    print(f"{hits} of {total} candidates are among the accepted words; {firsts} of {words} words have at least one.")


if __name__ == "__main__":
    main()
