"""Configurations of the augmentation commands."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import CommandConfig, identity, runtime
from shared.params import AugmentParams

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16"]


class ModelChoice(CommandConfig):
    """The models that propose candidates."""

    group: ClassVar[str] = "Models"

    mlm: str = identity("embedded", "Masked LM: embedded, a folder, or a hub id such as google-bert/bert-base-uncased.")
    glove: str = identity(
        "embedded", "Word vectors: embedded, GloVe or word2vec text (.gz too), or a folder with .npy."
    )
    glove_limit: int | None = identity(None, "Use only the first V vectors (reference: 100000).", ge=1)
    device: Device = identity("auto", "Where the masked LM computes.")
    dtype: Dtype = identity("auto", "Precision of the encoder: bf16 where the hardware has it.")
    batch_tokens: int = identity(1024, "Pieces per model batch.", ge=8)


class ModelConfig(ModelChoice, AugmentParams):
    """Parameters of Algorithm 1 and the models that propose candidates."""

    def params(self) -> AugmentParams:
        """The part that decides a text's samples."""
        return AugmentParams(**{name: getattr(self, name) for name in AugmentParams.model_fields})


class RunConfig(ModelConfig):
    """Options of `augment_service run`."""

    group: ClassVar[str] = "Run"

    input: tuple[str, ...] = identity(
        ..., "Input files, folders or globs, local or s3://: TSV, CSV, JSONL, Parquet, Arrow.", min_length=1
    )
    output: str = runtime(..., "Output folder, local or s3://bucket/prefix; an interrupted run resumes from it.")
    task: str | None = identity(None, "GLUE task: its text columns, labels and N_a.")
    text_column: tuple[str, ...] = identity(
        (), "Text column, by name or 0-based index; two for text pairs.", max_length=2
    )
    label_column: str | None = identity(None, "Label column, by name or 0-based index.")
    id_column: str | None = identity(None, "Column of whole-number source ids (default: the row's place).")
    max_characters: int = identity(100_000, "Longer texts are quarantined.", ge=1)
    shard_rows: int = identity(512, "Source rows per shard.", ge=1)
    limit: int | None = identity(None, "Use only the first ROWS rows.", ge=1)
    emit: Literal["samples", "candidates"] = identity("samples", "Write samples, or each text's candidate sets.")
    mlm_threads: int = identity(
        1, "CPU threads of one masked-LM actor; part of the job, since it may change last digits.", ge=1
    )
    mlm_actors: int | None = runtime(
        None, "Masked-LM actors (default: as many as the cluster has room for, also when it grows).", ge=1
    )
    mlm_gpus: float = runtime(1.0, "GPUs of one masked-LM actor; with a fraction, several share a GPU.", gt=0)
    glove_actors: int = runtime(1, "Actors that hold the word vectors, on each node with masked-LM actors.", ge=1)
    address: str = runtime("auto", "Ray: auto (a cluster if RAY_ADDRESS names one, else local), local, or its address.")
    check_resume: Literal["checksums", "sizes"] = runtime(
        "checksums", "What is checked of committed shards before a run goes on; damaged ones are made anew."
    )
    resume: bool = runtime(True, "Continue an interrupted run; --no-resume refuses an output folder that holds one.")

    @model_validator(mode="after")
    def _columns(self) -> RunConfig:
        if self.task is None and not self.text_column:
            raise ValueError("name the text with --text-column (once, or twice for pairs), or give --task")
        if self.emit == "candidates" and self.conditioning == "sequential":
            raise ValueError(
                "--emit candidates needs --conditioning original: sequential sets differ from draw to draw"
            )
        return self


class PlanConfig(RunConfig):
    """Options of `augment_service plan`: those of the run that is planned, and where it would run."""

    group: ClassVar[str] = "Plan"

    output: str = runtime("", "Accepted as in `run`, and left alone: a plan writes nothing.")
    nodes: int = runtime(1, "Machines.", ge=1)
    gpu: str = runtime(
        "none", "GPU of a node, such as A100; none: CPUs like this machine's; or BF16/FP32 peaks in TFLOP/s."
    )
    gpus_per_node: int = runtime(1, "GPUs of a node; --mlm-gpus says how actors share them.", ge=1)
    utilisation: float | None = runtime(
        None, "Assumed share of the GPU's peak (default 0.3; never measured).", gt=0, le=1
    )
    calibrate_seconds: float = runtime(10.0, "Seconds to measure for, after the models have loaded.", ge=1)


class CandidatesConfig(ModelConfig):
    """Options of `augment_service candidates`."""

    group: ClassVar[str] = "Texts"

    input: str = identity("-", "JSONL of {id, text} or {id, text_a, text_b}; - reads stdin.")
    threads: int | None = identity(None, "CPU threads.", ge=1)


class OutputConfig(CommandConfig):
    """Options of `status` and `verify`."""

    out: str = identity(..., "Output folder of a run.", positional=True, metavar="OUT")


class ExportConfig(OutputConfig):
    """Options of `augment_service export`."""

    group: ClassVar[str] = "Export"

    format: Literal["tsv", "jsonl", "parquet", "reference-tsv"] = identity("tsv", "Form of the file.")
    output: str = identity(..., "File to write.")


class ServeConfig(ModelChoice):
    """Options of `augment_service serve`."""

    group: ClassVar[str] = "Service"

    threads: int | None = runtime(None, "CPU threads of the model (default: all cores).", ge=1)
    host: str = runtime("127.0.0.1", "Address to listen on; any but a loopback address needs tokens.")
    port: int = runtime(8000, "Port to listen on; 0 takes a free one, which the first log line names.", ge=0, le=65535)
    token_file: str | None = runtime(
        None, "File with one bearer token a line; AUGMENT_SERVICE_TOKENS adds comma-separated ones."
    )
    allow_without_token: bool = runtime(
        False, "Listen beyond loopback without tokens: anyone who reaches the port may ask."
    )
    max_body_bytes: int = runtime(1_000_000, "Longest request body.", ge=1_000)
    max_texts: int = runtime(64, "Texts of one request; a streamed one may have 16 times as many.", ge=1)
    max_text_characters: int = runtime(10_000, "Characters of one text.", ge=1)
    max_n_a: int = runtime(100, "Samples of one text.", ge=1, le=10_000)
    max_k: int = runtime(100, "Candidates of one word.", ge=1, le=1_000)
    max_request_tokens: int = runtime(200_000, "Model pieces that one text may need.", ge=512)
    max_requests: int = runtime(256, "Requests at once; more are answered 503.", ge=1)
    max_answer_bytes: int = runtime(
        64_000_000, "Longest answer, as estimated before it is computed (a stream: its texts in progress).", ge=10_000
    )
    memory_budget: int = runtime(
        1_000_000_000, "Bytes that all requests in progress may take; more are answered 503.", ge=100_000
    )
    max_connections: int = runtime(
        2_000, "Open connections, as far as the file descriptors allow; more are closed with a 503.", ge=1
    )
    queue_seconds: float = runtime(
        2.0, "A request that would wait longer than this for the model is answered 503.", gt=0
    )
    max_wait_ms: float = runtime(2.0, "How long a model pass waits for company.", ge=0)
    body_seconds: float = runtime(30.0, "Time limit for the body of a request to arrive.", gt=0)
    request_seconds: float = runtime(60.0, "Time limit of one request, until its answer begins.", gt=0)
    drain_delay: float = runtime(
        0.0, "How long new connections are still accepted after SIGTERM, while /readyz says 503.", ge=0
    )
    drain_seconds: float = runtime(30.0, "How long requests in flight may go on after that.", ge=0)
    access_log: bool = runtime(
        False, "Log every request: method, route, status, seconds and X-Request-Id; never texts or tokens."
    )
    cache_bytes: int = runtime(256_000_000, "Bound of the cache of candidates.", ge=0)
