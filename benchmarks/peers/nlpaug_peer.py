"""nlpaug's contextual substitution, run by benchmarks/augment.py in its own virtualenv."""

import json
import resource
import sys
import time
from pathlib import Path

import nlpaug.augmenter.word as naw
import torch

folder, count, threads, n_a, k, p_t = sys.argv[1], *map(int, sys.argv[2:6]), float(sys.argv[6])
torch.set_num_threads(threads)
*sentences, warm_up = json.loads(Path(f"{folder}/part.json").read_text(encoding="utf-8"))
augmenter = naw.ContextualWordEmbsAug(
    model_path=f"{folder}/model", model_type="bert", action="substitute", top_k=k, aug_p=p_t, aug_max=None, device="cpu"
)
augmenter.augment(warm_up, n=1)
assert len(sentences) == count
began = time.monotonic()
samples = sum(len(augmenter.augment(text, n=n_a)) for text in sentences)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"sentences": count, "seconds": time.monotonic() - began, "samples": samples, "memory": memory}))
