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
SCHEDULE = "linear rises in the warm-up and then falls to zero; constant is the peak in every step, without warm-up."


class ComputeConfig(CommandConfig):
    """Where and how a model computes."""

    group: ClassVar[str] = "Compute"

    device: Device = identity("auto", "Where to compute: auto takes CUDA if available.")
    dtype: Dtype = identity("auto", "Precision of matrix products: auto is bf16 if the hardware supports it.")
    threads: int | None = identity(None, "CPU threads of one worker (default: all cores).", ge=1)


class TableConfig(ComputeConfig, TableFormat, LabelSets):
    """How a labelled file is read: the layout of a GLUE task, or columns by name or index."""

    group: ClassVar[str] = "Labelled data"

    task: str | None = identity(None, "GLUE task: sets columns, labels, sequence length and metric.")
    text_column: tuple[str, ...] = identity(
        (), "Text column, by name or 0-based index; two for text pairs.", max_length=2
    )
    label_column: str | None = identity(None, "Label column, by name or 0-based index.")
    max_length: int | None = identity(None, "Longest input in tokens (default 64, for pairs 128).", ge=8, le=4096)

    @model_validator(mode="after")
    def _columns(self) -> TableConfig:
        has_label = self.label_column is not None or bool(self.multi_label)
        if self.task is None and not (self.text_column and has_label):
            raise ValueError("give --task, or name the columns with --text-column and --label-column")
        return self


class LoopConfig(ComputeConfig):
    """Options of every training stage."""

    group: ClassVar[str] = "Training"

    output: str = runtime(
        ...,
        "Folder for checkpoints, metrics and the model, local, s3://, gs:// or az://; an interrupted run resumes "
        "from it.",
    )
    epochs: float = identity(3.0, "Passes over the training data.", gt=0)
    batch_size: int = identity(32, "Examples per step, over all workers.", ge=1)
    accumulate: int = identity(
        1, "Parts that a worker splits its share of a batch into, computed one after the other to save memory.", ge=1
    )
    lr: float = identity(5e-5, "Peak learning rate.", gt=0)
    warm_up_share: float = identity(0.1, "Share of training in which the learning rate rises.", ge=0, lt=1)
    weight_decay: float = identity(0.01, "AdamW weight decay of matrices.", ge=0)
    seed: int = identity(0, "Seed of sample order, dropout and new weights.", ge=0, lt=2**63)
    loader_workers: int = runtime(
        1, "Processes that read, sample and tokenize ahead; 0 does so between training steps.", ge=0
    )
    workers: int = runtime(1, "Training workers, through Ray Train; each batch is split over them.", ge=1)
    address: str = runtime("auto", "Ray for --workers: auto (RAY_ADDRESS, else local), local, or its address.")
    checkpoint_seconds: float = runtime(CHECKPOINT_SECONDS, "Seconds between checkpoints.", gt=0)
    name: str = runtime("", "Name of this run in the report.")


class TokenCacheConfig(CommandConfig):
    """Where tokenized data is kept."""

    group: ClassVar[str] = "Token cache"

    token_cache: str | None = runtime(
        None,
        "Folder on local disk for tokenized shards and corpora, which later epochs, workers and runs read instead "
        "(default: tinybert-tokens in TRAINER_CACHE, AUGMENT_SERVICE_CACHE, XDG_CACHE_HOME or ~/.cache).",
    )
    token_cache_gib: float = runtime(
        10.0,
        "Largest size of that folder, in GiB; what was not used for longest is removed. 0 keeps nothing. A corpus that "
        "is in use is kept however large it is, at 4 bytes per token.",
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
        "Text files, one passage per line, or tables: JSONL and Parquet, and CSV and TSV with --text-column. All of "
        "them may be compressed.",
        min_length=1,
    )
    text_column: str | None = identity(
        None, "Column of a --corpus table that holds the texts (default: text in JSONL and Parquet)."
    )
    encoding: str = identity(
        "auto", "Encoding of the corpus files, such as cp1252; auto is UTF-8, or what a mark says."
    )
    corpus_weights: tuple[float, ...] = identity(
        (), "Passes over each corpus file in one epoch, in --corpus order; fractions sample a part (default 1 each)."
    )
    max_length: int = identity(128, "Longest training sequence, in tokens.", ge=8, le=512)
    max_tokens: int | None = identity(None, "Stop after this many training tokens, if sooner than --epochs.", ge=1)
    epochs: float = identity(1.0, "Passes over the weighted corpus.", gt=0)
    batch_size: int = identity(
        32, "Sequences of --max-length per step, over all workers; more if they are shorter.", ge=1
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
        "Labelled file that the best checkpoint is chosen on (default: a validation part of the training rows, which "
        "is then not trained on).",
    )
    validation_share: float = identity(
        0.1,
        "Without --dev: share of the training rows in the validation part, at most 4,000 of them, by a hash of the "
        "text and the same from each class.",
        gt=0,
        lt=1,
    )
    test: str | None = identity(
        None, "Labelled file that the finished model is scored on, once. It never influences the choice."
    )
    select_by: SelectBy = identity(
        "mean", "Checkpoint: the best mean of all metrics, the best first metric, or the latest near the best mean."
    )
    evaluations: int = identity(4, "Evaluations per epoch.", ge=1)


class LabelsConfig(CommandConfig):
    """How the classes of a fine-tuned model are called in the labels of the data."""

    group: ClassVar[str] = "Labelled data"

    label_map: str | None = identity(
        None,
        "Labels of the model's classes, where its own names do not match them: NAME=LABEL,NAME=LABEL, such as "
        "LABEL_0=entailment,LABEL_1=not_entailment.",
    )


class TeacherConfig(ScoredConfig):
    """Options of `trainer teacher`."""

    group: ClassVar[str] = "Teacher"

    train: str = identity(..., "Training file: TSV, CSV, JSONL, Parquet or Arrow.")
    encoder: str = identity("embedded", "BERT to fine-tune: embedded, a folder or a hub id.")
    lr: float = identity(6e-5, "Peak learning rate.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate: {SCHEDULE}")
    regression: bool = identity(False, "The label is a number to predict (without --task).")


class StudentConfig(CommandConfig):
    """Size and initialisation of a student."""

    group: ClassVar[str] = "Student"

    student: str = identity(
        "tinybert4",
        "Size: tinybert4, tinybert6, or M,d',FFN,heads; or a student to initialise from: embedded, or a folder of "
        "`trainer general`.",
    )
    embedding_init: EmbeddingInit = identity(
        "projected",
        "Embeddings of a new student: principal components of the teacher's, the same weighted by how often each token "
        "occurs in the corpus (only in `trainer general`), or random.",
    )
    layer_init: LayerInit = identity(
        "random", "Layers of a new student: random, or copies of the teacher's mapped ones."
    )
    dropout: float = identity(0.1, "Dropout of the student during training.", ge=0, lt=1)
    mapping: str = identity("uniform", "g(m): uniform, top, bottom, or a list of teacher layers such as 3,6,9,12.")
    projection: Projection = identity("shared", "W_h: one for all layers and the embeddings, or one per layer.")
    attention_loss: AttentionLoss = identity(
        "auto",
        "Attention term: scores (equal numbers of heads), grouped (teacher heads averaged to the student's number), "
        "relations (MiniLMv2, last layers, any number of heads), none, or auto: scores if the numbers are equal, else "
        "none.",
    )
    loss_weights: tuple[str, ...] = identity(
        (),
        "Weights of the intermediate losses, such as attention=0.1 pooled=1 (default: 1 each, 0 for pooled, which "
        "compares the mean state of each text).",
    )


class GeneralConfig(CorpusConfig, StudentConfig):
    """Options of `trainer general`."""

    group: ClassVar[str] = "General distillation"

    teacher: str = identity("embedded", "Encoder to learn from, not fine-tuned: embedded, a folder or a hub id.")
    lr: float = identity(3e-4, "Peak learning rate.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate: {SCHEDULE}")
    decay_share: float | None = identity(
        None,
        "Share of the training, at the end, in which the learning rate falls to zero; it is constant between that and "
        "the warm-up (default: it falls linearly from the warm-up on).",
        ge=0,
        le=1,
    )
    pairs: float = identity(
        0.0, "Share of the text that is read as pairs of segments; 0 reads single passages.", ge=0, le=1
    )
    projection_init: ProjectionInit = identity(
        "random",
        "First W_h and W_e of a new student: random, or fitted to the teacher by least squares.",
    )
    held_out: float = identity(
        0.0,
        "Share of lines, chosen by hash, that is not trained on but shows how much of its teacher a student explains.",
        ge=0,
        lt=0.5,
    )
    evaluate_tokens: int = runtime(2_000_000, "Training tokens between evaluations on the held-out lines.", ge=1)

    @model_validator(mode="after")
    def _one_schedule(self) -> GeneralConfig:
        if self.schedule == "constant" and self.decay_share is not None:
            raise ValueError("--decay-share says how the learning rate falls; --schedule constant keeps it: give one")
        return self


HARD_LABELS = "Weight of the rows' own labels in the prediction loss, next to the teacher's answers (0: answers alone)"


class AnnotateConfig(ComputeConfig):
    """Options of `trainer annotate`."""

    group: ClassVar[str] = "Annotation"

    augmented: str = identity(..., "Output folder of `augment_service run`, which may still be running.")
    teacher: str = identity(..., "Fine-tuned teacher: a folder, a run's output or a hub id.")
    max_length: int | None = identity(None, "Longest input in tokens (default 64, for pairs 128).", ge=8, le=4096)
    n_a: int | None = identity(None, "Samples per source row to annotate (default: the job's).", ge=0)
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
    follow_timeout: float = runtime(600.0, "Seconds without a new shard after which the job counts as dead.", ge=0)


class GivenAnswersConfig(CommandConfig):
    """A teacher's answers that come with the data."""

    group: ClassVar[str] = "Answers in the data"

    teacher_column: str | None = identity(
        None,
        "Column with a teacher's answers, such as an LLM's, in place of a teacher: lists of probabilities or logits "
        "(in text files as JSON), classes, or numbers; with several labels per text, one number per label or lists of "
        "labels.",
    )
    teacher_classes: tuple[str, ...] = identity(
        (), "Classes in the order of the numbers in --teacher-column (default: the labels, sorted)."
    )
    teacher_form: AnswerForm = identity(
        "auto",
        "What --teacher-column holds: probabilities (each row sums to 1, unless a text has several labels), logits, "
        "labels or number; auto tells the first three apart.",
    )

    @model_validator(mode="after")
    def _answers_fit(self) -> GivenAnswersConfig:
        if self.teacher_column is None:
            if self.teacher_classes or self.teacher_form != "auto":
                raise ValueError("--teacher-classes and --teacher-form describe a --teacher-column: name it, too")
            return self
        if getattr(self, "teacher", None) is not None:
            raise ValueError("--teacher-column is in place of a --teacher: give one of the two")
        texts, label = getattr(self, "text_column", ()), getattr(self, "label_column", None)
        if self.teacher_column in (*texts, label):
            raise ValueError(
                f"--teacher-column {self.teacher_column} is also a text or the label; to learn from the labels alone, "
                "fine-tune a teacher on them"
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
        None, "Fine-tuned teacher: a folder, a run's output or a hub id (or the answers of --teacher-column)."
    )
    stages: tuple[Stage, ...] = identity(("intermediate", "prediction"), "Stages, in order.", min_length=1)
    epochs: float = identity(10.0, "Passes of the intermediate stage over the shards.", gt=0)
    lr: float = identity(5e-5, "Peak learning rate of the intermediate stage.", gt=0)
    schedule: LearningRate = identity("linear", f"Learning rate of the intermediate stage: {SCHEDULE}")
    prediction_epochs: float = identity(3.0, "Passes of the prediction stage over the shards.", gt=0)
    prediction_lr: float = identity(3e-5, "Peak learning rate of the prediction stage.", gt=0)
    prediction_schedule: LearningRate = identity("linear", "The same for the prediction stage.")
    prediction_batch_size: int | None = identity(
        None, "Examples per step of the prediction stage (default: --batch-size).", ge=1
    )
    temperature: float = identity(1.0, "t of the prediction loss.", gt=0)
    hard_label_weight: float = identity(0.0, f"{HARD_LABELS}.", ge=0, le=1)
    annotated: bool = identity(
        False, "Use the logits that `trainer annotate` stored alongside the shards instead of running the teacher."
    )
    balance: bool = identity(
        False, "With --annotated, repeat and leave out samples until the answers have the shares they have on the rows."
    )
    n_a: int | None = identity(
        None,
        "Samples per source row and epoch (default: the job's), drawn from candidate shards or the first of samples.",
        ge=0,
    )
    prune_vocabulary: str = identity(
        "none",
        "Tokens that the student keeps: auto (those that occur twice in the samples, within 3.0 M parameters), a "
        "number of the most frequent, or none to keep all. Waits for the augmentation job to finish.",
    )
    window_shards: int = identity(8, "Shards whose rows are shuffled together.", ge=1)
    follow_timeout: float = runtime(600.0, "Seconds without a new shard after which the job counts as dead.", ge=0)
    ablation: str = runtime("full", "Name of this run in the report's ablation table, such as no-general.")

    @model_validator(mode="after")
    def _has_a_teacher(self) -> TaskConfig:
        if self.teacher is None and self.teacher_column is None:
            raise ValueError("give --teacher, or the column of its answers with --teacher-column")
        if self.teacher_column is not None:
            if "prediction" not in self.stages:
                raise ValueError("--teacher-column is learned in the prediction stage, which --stages leaves out")
            if self.annotated:
                raise ValueError("--annotated reads stored logits of a --teacher; --teacher-column has the answers")
        if self.balance and not (self.annotated and "prediction" in self.stages):
            raise ValueError("--balance is about the stored answers of the prediction stage: add --annotated")
        return self

    @model_validator(mode="after")
    def _labels_have_a_stage(self) -> TaskConfig:
        if self.hard_label_weight and "prediction" not in self.stages:
            raise ValueError("--hard-label-weight weighs labels in the prediction stage, which --stages leaves out")
        return self


class EvaluateConfig(TableConfig, LabelsConfig):
    """Options of `trainer evaluate`."""

    group: ClassVar[str] = "Evaluation"

    model: str = identity(..., "Sequence classification model: a folder, a run's output or a hub id.")
    data: str = identity(..., "Labelled file.")
    batch_size: int = runtime(64, "Texts per model batch.", ge=1)
