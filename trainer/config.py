"""Configurations of the training commands."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import CommandConfig, identity, runtime
from shared.cli.table_format import LabelSets, TableFormat

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16"]
Projection = Literal["shared", "per-layer"]
Stage = Literal["intermediate", "prediction"]
EmbeddingInit = Literal["projected", "weighted", "random"]
ProjectionInit = Literal["random", "fitted"]
AttentionLoss = Literal["auto", "scores", "grouped", "relations", "none"]
LayerInit = Literal["random", "teacher"]
SelectBy = Literal["mean", "first", "late"]
LearningRate = Literal["linear", "constant"]
AnswerForm = Literal["auto", "probabilities", "logits", "labels", "number"]

CHECKPOINT_SECONDS = 300.0
GROWING = ("epochs", "prediction_epochs", "max_tokens")
"""Options that extend a run when the same command is given larger ones."""
SCHEDULE = "linear warms up and then decays to zero; constant stays at the peak, without warm-up."


class ComputeConfig(CommandConfig):
    """Where and how a model computes."""

    group: ClassVar[str] = "Compute"

    device: Device = identity("auto", "Device to compute on; auto uses CUDA if available.")
    dtype: Dtype = identity("auto", "Precision of matrix products; auto uses bf16 if the hardware supports it.")
    threads: int | None = identity(None, "CPU threads per worker (default: all cores).", ge=1)


class TableConfig(ComputeConfig, TableFormat, LabelSets):
    """How a labelled file is read: the layout of a GLUE task, or columns by name or index."""

    group: ClassVar[str] = "Labelled data"

    task: str | None = identity(None, "GLUE task: sets columns, labels, sequence length and metric.")
    text_column: tuple[str, ...] = identity(
        (), "Text column, by name or 0-based index; two for text pairs.", max_length=2
    )
    label_column: str | None = identity(None, "Label column, by name or 0-based index.")
    max_length: int | None = identity(None, "Maximum tokens per input (default 64, or 128 for pairs).", ge=8, le=4096)

    @model_validator(mode="after")
    def _columns(self) -> TableConfig:
        has_label = self.label_column is not None or bool(self.multi_label)
        if self.task is None and not (self.text_column and has_label):
            raise ValueError("pass --task, or name the columns with --text-column and --label-column")
        return self


class LoopConfig(ComputeConfig):
    """Options of every training stage."""

    group: ClassVar[str] = "Training"

    output: str = runtime(
        ...,
        "Folder for checkpoints, metrics and the model (local, s3://, gs:// or az://). An interrupted run resumes "
        "from it.",
    )
    epochs: float = identity(3.0, "Passes over the training data.", gt=0)
    batch_size: int = identity(32, "Examples per step, across all workers.", ge=1)
    accumulate: int = identity(
        1, "Gradient accumulation: parts per batch and worker, computed one after another to save memory.", ge=1
    )
    lr: float = identity(5e-5, "Peak learning rate.", gt=0)
    warm_up_share: float = identity(0.1, "Share of training spent warming up the learning rate.", ge=0, lt=1)
    weight_decay: float = identity(0.01, "AdamW weight decay, for matrices only.", ge=0)
    seed: int = identity(0, "Seed for sample order, dropout and new weights.", ge=0, lt=2**63)
    loader_workers: int = runtime(
        1, "Processes that read, sample and tokenize ahead; with 0, that happens between training steps.", ge=0
    )
    workers: int = runtime(1, "Training workers, run by Ray Train; each batch is split across them.", ge=1)
    address: str = runtime("auto", "Ray cluster for --workers: its address, local, or auto (RAY_ADDRESS, else local).")
    checkpoint_seconds: float = runtime(CHECKPOINT_SECONDS, "Seconds between checkpoints.", gt=0)
    name: str = runtime("", "Name of this run in the report.")


class TokenCacheConfig(CommandConfig):
    """Where tokenized data is kept."""

    group: ClassVar[str] = "Token cache"

    token_cache: str | None = runtime(
        None,
        "Local folder that caches tokenized shards and corpora for later epochs, workers and runs (default: "
        "tinybert-tokens in TRAINER_CACHE, AUGMENT_SERVICE_CACHE, XDG_CACHE_HOME or ~/.cache).",
    )
    token_cache_gib: float = runtime(
        10.0,
        "Maximum size of that folder, in GiB; the least recently used files are removed first, and 0 keeps nothing. A "
        "corpus in use is kept whatever its size, at 4 bytes per token.",
        ge=0,
    )

    @property
    def token_cache_bytes(self) -> int:
        """Largest size of the folder."""
        return int(self.token_cache_gib * 2**30)


class CorpusConfig(LoopConfig, TokenCacheConfig):
    """Training on plain text."""

    group: ClassVar[str] = "Corpus"

    corpus: tuple[str, ...] = identity(
        ...,
        "Text files with one passage per line, or tables: JSONL and Parquet, or CSV and TSV with --text-column. All "
        "may be compressed.",
        min_length=1,
    )
    text_column: str | None = identity(
        None, "Column of a --corpus table that holds the texts (default: text in JSONL and Parquet)."
    )
    encoding: str = identity(
        "auto", "Encoding of the corpus files, such as cp1252; auto follows a byte order mark, else UTF-8."
    )
    corpus_weights: tuple[float, ...] = identity(
        (), "Passes over each corpus file per epoch, in --corpus order; a fraction samples a part (default 1 each)."
    )
    max_length: int = identity(128, "Maximum training sequence length in tokens.", ge=8, le=512)
    max_tokens: int | None = identity(None, "Stop after this many training tokens, if before --epochs.", ge=1)
    epochs: float = identity(1.0, "Passes over the weighted corpus.", gt=0)
    batch_size: int = identity(
        32, "Sequences of --max-length tokens per step, across all workers; more if they are shorter.", ge=1
    )

    @model_validator(mode="after")
    def _weights(self) -> CorpusConfig:
        weights = self.corpus_weights
        if weights and len(weights) != len(self.corpus):
            raise ValueError(f"--corpus-weights has {len(weights)} numbers for {len(self.corpus)} files of --corpus")
        if weights and not (min(weights) >= 0 and 0 < sum(weights) < float("inf")):
            raise ValueError("--corpus-weights must be 0 or more, and not all 0")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """Passes over each corpus file in one epoch."""
        return self.corpus_weights or (1.0,) * len(self.corpus)


class ScoredConfig(LoopConfig, TableConfig):
    """A stage whose best checkpoint is chosen on labelled rows."""

    group: ClassVar[str] = "Selection and scores"

    dev: str | None = identity(
        None,
        "Labelled validation file, on which the best checkpoint is chosen (default: part of the training rows, which "
        "is held out).",
    )
    validation_share: float = identity(
        0.1,
        "Without --dev: share of the training rows to hold out for validation, at most 4,000, chosen by a hash of the "
        "text, with the same share from each class.",
        gt=0,
        lt=1,
    )
    test: str | None = identity(
        None, "Labelled file on which the finished model is scored once; it never influences the choice."
    )
    select_by: SelectBy = identity(
        "mean", "Checkpoint to keep: best mean of all metrics, best first metric, or the latest near the best mean."
    )
    evaluations: int = identity(4, "Evaluations per epoch.", ge=1)


class LabelsConfig(CommandConfig):
    """How the classes of a fine-tuned model are called in the labels of the data."""

    group: ClassVar[str] = "Labelled data"

    label_map: str | None = identity(
        None,
        "Maps the model's class names to the labels of the data, where they differ: NAME=LABEL,NAME=LABEL, such as "
        "LABEL_0=entailment,LABEL_1=not_entailment.",
    )


class TeacherConfig(ScoredConfig):
    """Options of `trainer teacher`."""

    group: ClassVar[str] = "Teacher"

    train: str = identity(..., "Training file: TSV, CSV, JSONL, Parquet or Arrow.")
    encoder: str = identity("embedded", "BERT model to fine-tune: embedded, a folder or a hub id.")
    lr: float = identity(6e-5, "Peak learning rate.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate schedule: {SCHEDULE}")
    regression: bool = identity(False, "Predict a number instead of a class (not with --task).")


class StudentConfig(CommandConfig):
    """Size and initialisation of a student."""

    group: ClassVar[str] = "Student"

    student: str = identity(
        "tinybert4",
        "Size (tinybert4, tinybert6 or M,d',FFN,heads), or a student to start from: embedded, or an output folder of "
        "`trainer general`.",
    )
    embedding_init: EmbeddingInit = identity(
        "projected",
        "Initial embeddings of a new student: principal components of the teacher's, the same weighted by token "
        "frequency in the corpus (only in `trainer general`), or random.",
    )
    layer_init: LayerInit = identity(
        "random", "Initial layers of a new student: random, or copies of the teacher layers they map to."
    )
    dropout: float = identity(0.1, "Dropout of the student during training.", ge=0, lt=1)
    mapping: str = identity("uniform", "Mapping g(m): uniform, top, bottom, or teacher layers such as 3,6,9,12.")
    projection: Projection = identity("shared", "W_h: one shared by all layers and the embeddings, or one per layer.")
    attention_loss: AttentionLoss = identity(
        "auto",
        "Attention loss: scores (equal numbers of heads), grouped (teacher heads averaged down to the student's "
        "number), relations (MiniLMv2: last layers, any number of heads), none, or auto (scores if the numbers of "
        "heads are equal, otherwise none).",
    )
    loss_weights: tuple[str, ...] = identity(
        (),
        "Weights of the intermediate losses, such as attention=0.1 pooled=1 (default: 1 each, but 0 for pooled, which "
        "compares the mean hidden state of each text).",
    )


class GeneralConfig(CorpusConfig, StudentConfig):
    """Options of `trainer general`."""

    group: ClassVar[str] = "General distillation"

    teacher: str = identity("embedded", "Encoder to learn from, not fine-tuned: embedded, a folder or a hub id.")
    lr: float = identity(3e-4, "Peak learning rate.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate schedule: {SCHEDULE}")
    decay_share: float | None = identity(
        None,
        "Share of training, at the end, in which the learning rate decays to zero; it is constant between warm-up and "
        "decay (default: the decay starts right after warm-up).",
        ge=0,
        le=1,
    )
    pairs: float = identity(
        0.0, "Share of the text to read as pairs of segments; 0 reads single passages only.", ge=0, le=1
    )
    projection_init: ProjectionInit = identity(
        "random",
        "Initial W_h and W_e of a new student: random, or fitted to the teacher by least squares.",
    )
    held_out: float = identity(
        0.0,
        "Share of lines, chosen by hash, to hold out and measure how much of its teacher the student misses.",
        ge=0,
        lt=0.5,
    )
    evaluate_tokens: int = runtime(2_000_000, "Training tokens between evaluations on the held-out lines.", ge=1)

    @model_validator(mode="after")
    def _one_schedule(self) -> GeneralConfig:
        if self.schedule == "constant" and self.decay_share is not None:
            raise ValueError("--decay-share cannot be combined with --schedule constant: use one of the two")
        return self


HARD_LABELS = "Weight w of the rows' own labels in the prediction loss; the teacher's answers have weight 1 - w"


class AnnotateConfig(ComputeConfig):
    """Options of `trainer annotate`."""

    group: ClassVar[str] = "Annotation"

    augmented: str = identity(..., "Output folder of `augment_service run`, which may still be running.")
    teacher: str = identity(..., "Fine-tuned teacher: a folder, a run's output or a hub id.")
    max_length: int | None = identity(None, "Maximum tokens per input (default 64, or 128 for pairs).", ge=8, le=4096)
    n_a: int | None = identity(None, "Samples per source row to annotate (default: the job's N_a).", ge=0)
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
    follow_timeout: float = runtime(600.0, "Give up after this many seconds without a new shard.", ge=0)


class GivenAnswersConfig(CommandConfig):
    """A teacher's answers that come with the data."""

    group: ClassVar[str] = "Answers in the data"

    teacher_column: str | None = identity(
        None,
        "Column with a teacher's answers, such as an LLM's, instead of a teacher model: lists of probabilities or "
        "logits (JSON in text files), classes, or numbers; with several labels per text, one number per label or lists "
        "of labels.",
    )
    teacher_classes: tuple[str, ...] = identity(
        (), "Classes in the order of the numbers in --teacher-column (default: the labels, sorted)."
    )
    teacher_form: AnswerForm = identity(
        "auto",
        "What --teacher-column holds: probabilities (each row sums to 1, unless a text has several labels), logits, "
        "labels or number; auto detects the first three.",
    )

    @model_validator(mode="after")
    def _answers_fit(self) -> GivenAnswersConfig:
        if self.teacher_column is None:
            if self.teacher_classes or self.teacher_form != "auto":
                raise ValueError("--teacher-classes and --teacher-form need --teacher-column")
            return self
        if getattr(self, "teacher", None) is not None:
            raise ValueError("--teacher-column replaces --teacher: use one of the two")
        texts, label = getattr(self, "text_column", ()), getattr(self, "label_column", None)
        if self.teacher_column in (*texts, label):
            raise ValueError(
                f"--teacher-column {self.teacher_column} is also a text or label column; to learn from the labels "
                "alone, fine-tune a teacher on them"
            )
        if self.teacher_column in getattr(self, "multi_label", ()):
            raise ValueError(f"--teacher-column {self.teacher_column} is also one of --multi-label")
        if len(set(self.teacher_classes)) != len(self.teacher_classes):
            raise ValueError("--teacher-classes names a class twice")
        return self


class TaskConfig(ScoredConfig, StudentConfig, LabelsConfig, GivenAnswersConfig, TokenCacheConfig):
    """Options of `trainer task`."""

    group: ClassVar[str] = "Task distillation"

    augmented: str = identity(..., "Output folder of `augment_service run`, which may still be running.")
    teacher: str | None = identity(
        None, "Fine-tuned teacher: a folder, a run's output or a hub id. Not with --teacher-column."
    )
    stages: tuple[Stage, ...] = identity(("intermediate", "prediction"), "Stages to run, in order.", min_length=1)
    epochs: float = identity(10.0, "Passes over the shards in the intermediate stage.", gt=0)
    lr: float = identity(5e-5, "Peak learning rate of the intermediate stage.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate schedule of the intermediate stage: {SCHEDULE}")
    prediction_epochs: float = identity(3.0, "Passes over the shards in the prediction stage.", gt=0)
    prediction_lr: float = identity(3e-5, "Peak learning rate of the prediction stage.", gt=0)
    prediction_schedule: LearningRate = identity("linear", "Schedule of the prediction stage; see --schedule.")
    prediction_batch_size: int | None = identity(
        None, "Examples per step of the prediction stage (default: --batch-size).", ge=1
    )
    temperature: float = identity(1.0, "Temperature t of the prediction loss.", gt=0)
    hard_label_weight: float = identity(0.0, f"{HARD_LABELS}.", ge=0, le=1)
    annotated: bool = identity(
        False, "Use the logits that `trainer annotate` stored alongside the shards instead of running the teacher."
    )
    balance: bool = identity(
        False, "With --annotated, repeat or drop samples until the answers are distributed as on the source rows."
    )
    n_a: int | None = identity(
        None,
        "Samples per source row and epoch, drawn from candidates or the first ones stored (default: the job's N_a).",
        ge=0,
    )
    prune_vocabulary: str = identity(
        "none",
        "Tokens that the student keeps: auto (those seen at least twice in the samples, within 3.0 M parameters), N "
        "for the N most frequent, or none to keep all. Waits for the augmentation job to finish.",
    )
    window_shards: int = identity(8, "Shards whose rows are shuffled together.", ge=1)
    follow_timeout: float = runtime(600.0, "Give up after this many seconds without a new shard.", ge=0)
    ablation: str = runtime("full", "Name of this run in the report's ablation table, such as no-general.")

    @model_validator(mode="after")
    def _has_a_teacher(self) -> TaskConfig:
        if self.teacher is None and self.teacher_column is None:
            raise ValueError("pass --teacher, or name the column with its answers with --teacher-column")
        if self.teacher_column is not None:
            if "prediction" not in self.stages:
                raise ValueError("--teacher-column needs the prediction stage, which --stages leaves out")
            if self.annotated:
                raise ValueError("--annotated reads the stored logits of --teacher; leave it out with --teacher-column")
        if self.balance and not (self.annotated and "prediction" in self.stages):
            raise ValueError("--balance uses the stored logits of the prediction stage: it needs --annotated")
        return self

    @model_validator(mode="after")
    def _labels_have_a_stage(self) -> TaskConfig:
        if self.hard_label_weight and "prediction" not in self.stages:
            raise ValueError("--hard-label-weight needs the prediction stage, which --stages leaves out")
        return self


class EvaluateConfig(TableConfig, LabelsConfig):
    """Options of `trainer evaluate`."""

    group: ClassVar[str] = "Evaluation"

    model: str = identity(..., "Sequence classification model: a folder, a run's output or a hub id.")
    data: str = identity(..., "Labelled file.")
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
