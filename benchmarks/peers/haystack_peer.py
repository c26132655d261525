"""farm-haystack's TinyBERT augmentation (haystack.utils.augment_squad), run by benchmarks/augment.py."""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from haystack.utils.augment_squad import augment, load_glove
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder, count, threads, n_a, k, p_t = sys.argv[1], *map(int, sys.argv[2:6]), float(sys.argv[6])
torch.set_num_threads(threads)
*sentences, warm_up = json.loads(Path(f"{folder}/part.json").read_text(encoding="utf-8"))
model = AutoModelForMaskedLM.from_pretrained(f"{folder}/model").eval()
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/model", use_fast=False)
vectors = load_glove(glove_path=Path(f"{folder}/glove.txt"))


def samples_of(text: str) -> int:
    options = {"multiplication_factor": n_a, "word_possibilities": k, "replace_probability": p_t}
    return len(augment(*vectors, model, tokenizer, text, **options))


samples_of(warm_up)
assert len(sentences) == count
began = time.monotonic()
samples = sum(samples_of(text) for text in sentences)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"sentences": count, "seconds": time.monotonic() - began, "samples": samples, "memory": memory}))
