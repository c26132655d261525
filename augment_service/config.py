"""Options of the augmentation commands."""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, StringConstraints, model_validator

from shared.cli.config import CommandConfig, identity, runtime
from shared.cli.table_format import LabelSets, TableFormat
from shared.glue import Task
from shared.label_quotas import LARGEST, LabelQuotas
from shared.params import AugmentParams, Context, Filter, Protect, StopWords, WordList, Words
from shared.protected import read_word_files
from shared.storage.local_paths import absolute, absolute_model

Config = TypeVar("Config", bound=CommandConfig)
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16"]
BatchTokens = Annotated[int | None, BeforeValidator(lambda value: None if value == "auto" else value)]
"""None means auto, see `augment_service.engine.batch_size`."""
RootPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$")]
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+$")]


class ModelChoice(CommandConfig):
    """The models that propose candidates."""

    group: ClassVar[str] = "Models"

    mlm: str = identity(
        "embedded", "Masked LM: embedded, a local folder, or a hub id like google-bert/bert-base-uncased."
    )
    glove: str = identity(
        "embedded",
        "Word vectors: embedded; a GloVe, word2vec or fastText file (text or .bin, optionally compressed, or "
        "ARCHIVE.zip/MEMBER); or a folder with an .npy file and its index.",
    )
    glove_limit: int | None = identity(None, "Use only the first N vectors (the reference uses 100000).", ge=1)
    device: Device = identity("auto", "Device to run the masked LM on.")
    dtype: Dtype = identity("auto", "Precision of the encoder; auto uses bf16 if the hardware supports it.")
    batch_tokens: BatchTokens = identity(
        None,
        "Tokens per model batch (default: auto, which is 1024 on a CPU and measured at load time on a GPU).",
        ge=8,
        metavar="N|auto",
    )


class WordFiles(BaseModel):
    """Reads the files of words where a command is started, so that their content is part of its configuration."""

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: Any) -> Any:
        """Raises UsageError naming the file that cannot be read."""
        values = dict(values)
        if values.get("protect_words"):
            values["protect_words"] = read_word_files("--protect-words", _as_list(values["protect_words"]))
        stop = _as_list(values.get("stop_words", ()))
        if stop and stop not in (["reference"], ["none"]):
            values["stop_words"] = read_word_files("--stop-words", stop)
        return values


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]


class ModelConfig(ModelChoice, WordFiles, AugmentParams):
    """Parameters of Algorithm 1, and the models that propose candidates."""

    def params(self) -> AugmentParams:
        """The options that decide the samples of a text."""
        return AugmentParams(**{name: getattr(self, name) for name in AugmentParams.model_fields})


class RunConfig(ModelConfig, TableFormat, LabelSets):
    """Options of `augment_service run`."""

    group: ClassVar[str] = "Run"

    input: tuple[str, ...] = identity(
        ...,
        "Input files, folders or globs (local, s3://, gs://, az:// or hf://): tables of any supported format, "
        "optionally compressed.",
        min_length=1,
    )
    output: str = runtime(..., "Output folder (local, s3://, gs:// or az://). An interrupted run resumes from it.")
    task: str | None = identity(None, "GLUE task; sets the text columns, labels and N_a.")
    text_column: tuple[str, ...] = identity(
        (), "Text column, by name or 0-based index; two for text pairs.", max_length=2
    )
    label_column: str | None = identity(None, "Label column, by name or 0-based index.")
    missing_labels: Literal["quarantine", "keep"] = identity(
        "quarantine", "Rows without a label: quarantine them, or keep them with a null label."
    )
    n_a_per_label: tuple[str, ...] = identity(
        (),
        "N_a for rows with these labels, instead of --n-a: more samples for rare classes, fewer for common ones. If a "
        "row has several labels, the largest number counts.",
        metavar="LABEL=N",
    )
    n_a_unlabelled: int | None = identity(
        None,
        "N_a for rows without a label; needs --missing-labels keep (default: --n-a).",
        ge=0,
        le=LARGEST,
    )
    id_column: str | None = identity(None, "Column with integer source ids (default: the row's position).")
    max_characters: int = identity(100_000, "Quarantine rows with a text longer than this.", ge=1)
    shard_rows: int = identity(512, "Source rows per shard.", ge=1)
    limit: int | None = identity(None, "Use only the first N rows.", ge=1)
    emit: Literal["samples", "candidates"] = identity("samples", "Write samples, or the candidate sets of each text.")
    mlm_threads: int = identity(
        1, "CPU threads per masked-LM actor; must match on resume, because it can change the last digits.", ge=1
    )
    mlm_actors: int | None = runtime(
        None,
        "Number of masked-LM actors (default: as many as fit on the cluster, including nodes that join later).",
        ge=1,
    )
    mlm_gpus: float = runtime(1.0, "GPUs per masked-LM actor; with a fraction, several actors share a GPU.", gt=0)
    workers_per_gpu: str = runtime(
        "auto",
        "Processes per masked-LM actor that prepare its inputs and assemble shards while it runs the model: N, or auto "
        "(on a GPU, its share of the CPUs, at most 8; on a CPU, 0: the actor does everything itself).",
        pattern="^(auto|[0-9]{1,3})$",
        metavar="auto|N",
    )
    glove_actors: int = runtime(1, "Word-vector actors per node that runs masked-LM actors.", ge=1)
    address: str = runtime("auto", "Ray cluster: its address, local, or auto (RAY_ADDRESS if set, otherwise local).")
    check_resume: Literal["checksums", "sizes"] = runtime(
        "checksums", "How committed shards are checked before a run resumes; damaged shards are recomputed."
    )
    max_quarantine: float = runtime(
        0.5, "Stop the run if more than this share of the rows is quarantined; not checked below 100 rows.", ge=0, le=1
    )
    stall_seconds: float = runtime(
        600.0,
        "Replace an actor whose shard or model load takes longer than this and more than 20 times the average.",
        gt=0,
    )
    no_room_seconds: float = runtime(
        3600.0, "Stop the run if no actor can start for this long, for example because the cluster is full.", gt=0
    )
    resume: bool = runtime(True, "Continue an interrupted run; --no-resume rejects an output that contains one.")

    def with_absolute_paths(self) -> RunConfig:
        """The same options with absolute paths, which mean the same in every process."""
        paths = {"input": tuple(map(absolute, self.input)), "output": absolute(self.output)}
        models = {"mlm": absolute_model(self.mlm), "glove": absolute_model(self.glove)}
        return self.model_copy(update=paths | models)

    @property
    def quotas(self) -> LabelQuotas:
        """N_a of each label that has its own."""
        return LabelQuotas.parse(self.n_a_per_label, self.n_a_unlabelled)

    @model_validator(mode="after")
    def _quotas_are_clear(self) -> RunConfig:
        if self.quotas.numbers and self.task is None and self.label_column is None and not self.multi_label:
            raise ValueError("--n-a-per-label needs the column of the labels: name it with --label-column")
        if self.n_a_unlabelled is not None and self.missing_labels != "keep":
            raise ValueError("--n-a-unlabelled is about rows without a label: add --missing-labels keep")
        return self

    @model_validator(mode="after")
    def _columns(self) -> RunConfig:
        if self.task is None and not self.text_column:
            raise ValueError("name the text with --text-column (two columns for pairs), or give --task")
        if self.emit == "candidates" and self.conditioning == "sequential":
            raise ValueError(
                "--emit candidates needs --conditioning original: with sequential, the sets differ from draw to draw"
            )
        return self

    def with_n_a_of(self, task: Task | None) -> Self:
        """The same options with the task's N_a, unless N_a was set explicitly."""
        if task is None or "n_a" in self.model_fields_set:
            return self
        return self.model_copy(update={"n_a": task.n_a})


class PlanConfig(RunConfig):
    """Options of `augment_service plan`: those of the planned run, and the hardware it would run on."""

    group: ClassVar[str] = "Plan"

    output: str = runtime("", "Accepted so that the options of `run` can be reused; nothing is written.")
    nodes: int = runtime(1, "Number of machines.", ge=1)
    gpu: str = runtime(
        "none", "GPU model such as A100, or its peak rates BF16/FP32 in TFLOP/s; none: CPUs like this machine's."
    )
    gpus_per_node: int = runtime(1, "GPUs per node; --mlm-gpus says how actors share them.", ge=1)
    utilisation: float | None = runtime(
        None, "Assumed share of the GPU's peak performance (default 0.3; an assumption, not measured).", gt=0, le=1
    )
    calibrate_seconds: float = runtime(
        10.0,
        "Target duration of this command, in seconds. Loading the models and timing a few rows may take longer.",
        ge=1,
    )


def _as_in_algorithm(name: str) -> Any:
    """The same option as in AugmentParams."""
    return copy(AugmentParams.model_fields[name])


class CandidatesConfig(ModelChoice, WordFiles):
    """Options of `augment_service candidates`: those that decide candidates, and none of those that decide draws."""

    group: ClassVar[str] = "Texts"

    k: int = _as_in_algorithm("k")
    context: Context = _as_in_algorithm("context")
    words: Words = _as_in_algorithm("words")
    filter: Filter = _as_in_algorithm("filter")
    protect_words: WordList = _as_in_algorithm("protect_words")
    stop_words: StopWords = _as_in_algorithm("stop_words")
    input: str = identity("-", "JSONL file with {id, text} or {id, text_a, text_b} per line; - reads stdin.")
    threads: int | None = identity(None, "CPU threads (default: all cores).", ge=1)
    protect: Protect = identity(
        (),
        "Show no candidates for words inside these: any of urls, emails, html, mentions, numbers, separated by commas, "
        "or a regular expression (default: none).",
        metavar="KINDS",
    )

    @model_validator(mode="after")
    def _always_json(self) -> Self:
        return _refuse_json(self, "candidates prints JSON lines in any case")

    def params(self) -> AugmentParams:
        """The options that decide the candidates of a text; the others have no effect on them."""
        names = set(AugmentParams.model_fields) & set(type(self).model_fields)
        return AugmentParams(**{name: getattr(self, name) for name in names})


def _refuse_json(config: Config, reason: str) -> Config:
    """Reject --json, because the command prints no summary. A flag either works or is an error."""
    if config.as_json:
        raise ValueError(f"--json has no effect here: {reason}")
    return config


class OutputConfig(CommandConfig):
    """Options of `status` and `verify`."""

    out: str = identity(..., "Output folder of a run.", positional=True, metavar="OUT")


class ExportConfig(OutputConfig):
    """Options of `augment_service export`."""

    group: ClassVar[str] = "Export"

    format: Literal["tsv", "jsonl", "parquet", "reference-tsv"] = identity("tsv", "File format.")
    output: str = identity(..., "File to write, local, s3://, gs:// or az://.")


class ServeConfig(ModelChoice):
    """Options of `augment_service serve`."""

    group: ClassVar[str] = "Service"
    environment_prefix: ClassVar[str] = "AUGMENT_SERVICE_"

    threads: int | None = runtime(None, "CPU threads of the model (default: all cores).", ge=1)
    host: str = runtime("127.0.0.1", "Address to listen on; any but a loopback address requires bearer tokens.")
    port: int = runtime(8000, "Port to listen on; 0 picks a free one, shown in the first log line.", ge=0, le=65535)
    token_file: str | None = runtime(
        None,
        "File with one bearer token per line, optionally with a name and limits; reloaded when it changes. "
        "AUGMENT_SERVICE_TOKENS adds more tokens, separated by commas.",
    )
    allow_without_token: bool = runtime(
        False,
        "Listen beyond loopback without tokens: anyone who can reach the port can use the service.",
    )
    max_body_bytes: int = runtime(1_000_000, "Maximum size of a request body in bytes.", ge=1_000)
    max_texts: int = runtime(64, "Maximum texts per request; streamed requests may have 16 times as many.", ge=1)
    max_text_characters: int = runtime(10_000, "Maximum characters per text.", ge=1)
    max_n_a: int = runtime(100, "Maximum N_a of a request: samples per text.", ge=1, le=10_000)
    max_k: int = runtime(100, "Maximum K of a request: candidates per word.", ge=1, le=1_000)
    max_request_tokens: int = runtime(200_000, "Maximum model tokens that one text may require.", ge=512)
    max_requests: int = runtime(256, "Maximum concurrent requests; further ones get a 503.", ge=1)
    max_answer_bytes: int = runtime(
        64_000_000,
        "Maximum size of a response, estimated in advance (for streams: of the texts in progress).",
        ge=10_000,
    )
    memory_budget: int = runtime(
        1_000_000_000, "Memory for all requests in progress, in bytes; further ones get a 503.", ge=100_000
    )
    max_connections: int = runtime(
        2_000,
        "Maximum open connections, capped by the limit on open files. Beyond it, a new one replaces an idle one "
        "or gets a 503.",
        ge=1,
    )
    queue_seconds: float = runtime(2.0, "A request that would wait longer than this for the model gets a 503.", gt=0)
    max_wait_ms: float = runtime(2.0, "Maximum wait for more requests before a batch runs.", ge=0)
    body_seconds: float = runtime(30.0, "Time limit for receiving a request body.", gt=0)
    request_seconds: float = runtime(
        60.0, "Time limit from receiving a request to the start of its response; then it gets a 504.", gt=0
    )
    slow_seconds: float = runtime(5.0, "Count and log requests that take longer than this; streams are exempt.", gt=0)
    drain_delay: float = runtime(
        0.0, "How long new connections are still accepted after SIGTERM, while /readyz returns 503.", ge=0
    )
    drain_seconds: float = runtime(30.0, "How long requests in flight then have to finish.", ge=0)
    access_log: bool = runtime(
        False, "Log every request: method, route, status, seconds and X-Request-Id; never texts or tokens."
    )
    cache_bytes: int = runtime(256_000_000, "Maximum size of the candidate cache in bytes.", ge=0)
    admin_port: int | None = runtime(
        None,
        "Also serve /healthz, /readyz, /metrics and /info here, without tokens; 0 picks a free port.",
        ge=0,
        le=65535,
    )
    admin_host: str = runtime("127.0.0.1", "Address of --admin-port.")
    root_path: RootPath = runtime("", "Path under which a reverse proxy publishes the service, such as /augment.")
    cors_origin: tuple[Origin, ...] = runtime(
        (),
        "Origins whose pages may call the service from a browser, such as https://app.example.org.",
        metavar="ORIGIN",
    )
    gzip: bool = runtime(True, "Compress responses of 2 kB or more, except streams, for clients that accept it.")
    traces: bool = runtime(
        False, "Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT (needs pip install '.[traces]')."
    )

    @model_validator(mode="after")
    def _no_summary(self) -> Self:
        return _refuse_json(self, "the service prints no summary; --log-format json writes its log lines as JSON")
