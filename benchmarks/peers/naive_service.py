"""Services that do not share model passes, for benchmarks/serve.py: the same model behind FastAPI.

They handle one request at a time. `one-pass` pads the masked words of a request into one batch and runs transformers in
fp32, with the head at every position. `nlpaug` is nlpaug's contextual substitution, in its own virtualenv.
"""

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

kind, model_path, port, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
app = FastAPI()


class Request(BaseModel):
    texts: list[str]
    n_a: int = 20
    k: int = 15
    p_t: float = 0.4
    seed: int = 0


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}


if kind == "nlpaug":
    import nlpaug.augmenter.word as naw

    augmenter = naw.ContextualWordEmbsAug(
        model_path=model_path, model_type="bert", action="substitute", top_k=15, aug_p=0.4, aug_max=None, device="cpu"
    )

    @app.post("/v1/augment")
    async def augment(body: Request) -> dict[str, Any]:
        return {"results": [{"samples": augmenter.augment(text, n=body.n_a)} for text in body.texts]}
else:
    import transformers

    from augment_service.engine.words import WordSplitter, may_replace
    from shared.candidates import RowCandidates, Site, TextCandidates
    from shared.params import AugmentParams
    from shared.sampling import draw_samples

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(model_path).eval()
    splitter = WordSplitter(tokenizer)
    frame = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)

    @torch.no_grad()
    def candidates(text: str, k: int) -> TextCandidates:
        (words,) = splitter.split([text])
        token_ids = [token for word in words for token in word.piece_ids]
        inputs, places, chosen, place = [], [], [], 0
        for word in words:
            if word.is_single_piece and may_replace(word, "reference"):
                inputs.append([frame[0], *token_ids[:place], frame[2], *token_ids[place + 1 :], frame[1]])
                places.append(place + 1)
                chosen.append(word)
            place += len(word.piece_ids)
        if not inputs:
            return TextCandidates(text, ())
        logits = model(input_ids=torch.tensor(inputs)).logits[torch.arange(len(places)), torch.tensor(places)]
        best = logits.topk(k)
        sites = [
            Site(word.start, word.end, word.text, "mlm", tuple(tokenizer.convert_ids_to_tokens(ids)), tuple(scores))
            for word, ids, scores in zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return TextCandidates(text, tuple(sites))

    @app.post("/v1/augment")
    async def augment(body: Request) -> dict[str, Any]:
        params = AugmentParams(n_a=body.n_a, k=body.k, p_t=body.p_t, seed=body.seed)
        results = []
        for number, text in enumerate(body.texts):
            samples = draw_samples([RowCandidates(number, candidates(text, body.k))], params)
            results.append({"samples": list(samples.replaced_words())})
        return {"results": results}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
