"""Tasks, groups and label sets of VECBench, and the rule by which a written label is one of them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

MIKELS_8 = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
POLARITY_2 = ("positive", "negative")
UNBIASED_6 = ("anger", "fear", "joy", "love", "sadness", "surprise")
WEBEMO_7 = ("anger", "confusion", "fear", "joy", "love", "sadness", "surprise")

# In the index order 0-24 of the data set, with its own spelling (cheerfullness, irritabilty).
WEBEMO_25 = (
    *("affection", "cheerfullness", "confusion", "contentment", "disappointment", "disgust", "enthrallment"),
    *("envy", "exasperation", "gratitude", "horror", "irritabilty", "lust", "neglect", "nervousness"),
    *("optimism", "pride", "rage", "relief", "sadness", "shame", "suffering", "surprise", "sympathy", "zest"),
)

_POSITIVE_MIKELS = ("amusement", "awe", "contentment", "excitement")
MIKELS_TO_POLARITY = {label: "positive" if label in _POSITIVE_MIKELS else "negative" for label in MIKELS_8}

_WEBEMO_7_MEMBERS = {
    "love": ("affection", "gratitude", "lust"),
    "joy": ("cheerfullness", "contentment", "enthrallment", "optimism", "pride", "relief", "zest"),
    "surprise": ("surprise",),
    "confusion": ("confusion",),
    "sadness": ("disappointment", "neglect", "sadness", "shame", "suffering", "sympathy"),
    "anger": ("disgust", "envy", "exasperation", "irritabilty", "rage"),
    "fear": ("horror", "nervousness"),
}
WEBEMO_25_TO_7 = {fine: coarse for coarse, members in _WEBEMO_7_MEMBERS.items() for fine in members}
WEBEMO_7_TO_2 = {
    label: "positive" if label in ("love", "joy", "surprise") else "negative" for label in WEBEMO_7
}
WEBEMO_25_TO_2 = {fine: WEBEMO_7_TO_2[coarse] for fine, coarse in WEBEMO_25_TO_7.items()}

DERIVED_LABELS = {"FI-2": MIKELS_TO_POLARITY, "WebEmo-7": WEBEMO_25_TO_7, "WebEmo-2": WEBEMO_25_TO_2}
"""Tasks whose labels follow from those of the release, FI's eight or WEBEmo's 25."""

GROUPS = ("ID VSA", "ID VER", "OOD VER")
"""In / out of the training distribution, visual sentiment analysis / visual emotion recognition."""


@dataclass(frozen=True)
class Task:
    """One task of VECBench: the data set it is drawn from, its group, its label set, its published rows.

    `n_train` is None for a task outside the training distribution.
    """

    name: str
    dataset: str
    group: str
    labels: tuple[str, ...]
    n_test: int
    n_train: int | None = None


TASKS = {
    task.name: task
    for task in (
        Task("Abstract-8", "Abstract", "OOD VER", MIKELS_8, 229),
        Task("Artphoto-8", "ArtPhoto", "OOD VER", MIKELS_8, 806),
        Task("EmoSet-8", "EmoSet-118K", "ID VER", MIKELS_8, 1000, 94_448),
        Task("FI-2", "FI", "ID VSA", POLARITY_2, 1000, 10_382),
        Task("FI-8", "FI", "ID VER", MIKELS_8, 1000, 10_378),
        Task("UnbiasedEmo-6", "UnbiasedEmo", "OOD VER", UNBIASED_6, 1000),
        Task("WebEmo-2", "WEBEmo", "ID VSA", POLARITY_2, 1000, 87_601),
        Task("WebEmo-7", "WEBEmo", "ID VER", WEBEMO_7, 1000, 82_878),
        Task("WebEmo-25", "WEBEmo", "ID VER", WEBEMO_25, 997, 74_717),
    )
}
"""The nine tasks in the order of the published tables."""

PUBLISHED_TEST_ROWS = {name: task.n_test for name, task in TASKS.items()}
PUBLISHED_TRAIN_ROWS = {name: task.n_train for name, task in TASKS.items() if task.n_train is not None}
"""Rows of the published splits; of the test split 8032 in all."""

_TASK_NAMES = {name.casefold(): name for name in TASKS} | {"unbaisedemo-6": "UnbiasedEmo-6"}
_TASK_ORDER = {name: position for position, name in enumerate(TASKS)}

# Words that stand for the same label: raw spellings of Abstract and ArtPhoto, and the typos of WEBEmo.
_SYNONYM_GROUPS = (
    ("sadness", "sad"),
    ("contentment", "content"),
    ("cheerfullness", "cheerfulness"),
    ("irritabilty", "irritability"),
)

# Inside a sentence these are usually another word ("the content of the image"): they count only alone.
_SYNONYMS_ONLY_ALONE = frozenset({"content"})
_SYNONYMS = {
    word: tuple(other for other in group if other != word) for group in _SYNONYM_GROUPS for word in group
}

# The limit of Unicode's stream-safe text (UAX #15): longer runs of marks make normalisation quadratic.
_LONGEST_RUN_OF_MARKS = 30
_LONGEST_KEPT = 64
_JOINT_IN_WORD = re.compile(r"(?<=[^\W_])(?:[-\u2010\u2011]|_+)(?=[^\W_])")
_ASCII_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def canonical_task(name: str) -> str:
    """Give the table's spelling of a task; an unknown name comes back stripped and otherwise unchanged."""
    stripped = name.strip()
    return _TASK_NAMES.get(stripped.casefold(), stripped)


def rows_of_task(text: str, at_least: int = 0) -> tuple[str, int]:
    """Read TASK=N, a task and a number of its rows. Raises ValueError that says what to give."""
    name, _, number = text.partition("=")
    task = canonical_task(name)
    if task not in TASKS or not (number.isascii() and number.isdecimal()) or int(number) < at_least:
        least = f", N at least {at_least}" if at_least else ""
        raise ValueError(f"{text}: give TASK=N with one of {', '.join(TASKS)}{least}")
    return task, int(number)


def task_group(name: str) -> str | None:
    """Give the group of a task, None for a task that VECBench does not have."""
    task = TASKS.get(canonical_task(name))
    return task.group if task else None


def task_sort_key(name: str) -> tuple[int, str]:
    """Order tasks: the nine first, in the order of the tables, then others alphabetically."""
    canonical = canonical_task(name)
    return _TASK_ORDER.get(canonical, len(TASKS)), canonical


def _separate(character: str) -> str:
    """Keep letters, marks, numbers and pictographs; drop invisible characters; the rest parts words."""
    category = unicodedata.category(character)
    if category[0] in "LMN" or category == "So":
        return character
    return "" if category == "Cf" else " "


def _stream_safe(text: str) -> Iterable[str]:
    """Leave out combining marks beyond a run that any language uses."""
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _LONGEST_RUN_OF_MARKS:
            yield character


def _without_leading_marks(word: str) -> str:
    """Drop marks that stand on nothing: what is left of a quote such as the acute accent."""
    letters = (place for place, letter in enumerate(word) if unicodedata.category(letter)[0] != "M")
    return word[next(letters, len(word)) :]


def normalise_label(text: str) -> str:
    """Fold case, Unicode form, punctuation and white space, so that equal labels are equal strings.

    Punctuation and symbols part words (`great-joy` is `great joy`); a text without a letter, digit or
    pictograph is the empty string. Runs in linear time.
    """
    # What is longer than a label is not worth keeping.
    return (_normalised if len(text) <= _LONGEST_KEPT else _normalised.__wrapped__)(text)


@lru_cache(maxsize=4096)  # labels repeat
def _normalised(text: str) -> str:
    if text.isascii():
        return " ".join(_ASCII_NOT_ALPHANUMERIC.sub(" ", text.lower()).split())
    folded = unicodedata.normalize("NFKC", "".join(_stream_safe(text)))
    folded = unicodedata.normalize("NFKC", folded.casefold())
    words = map(_without_leading_marks, "".join(map(_separate, folded)).split())
    return " ".join(filter(None, words))


@dataclass(frozen=True)
class LabelMatch:
    """The candidates that a text stands for: none, one, or several where it does not decide.

    `by_synonym`: the label is written as a synonym or in another spelling than the candidate.
    """

    labels: tuple[str, ...]
    by_synonym: bool


@dataclass(frozen=True)
class _LabelForms:
    """Every written form of a candidate list: normalised text -> the candidates it stands for.

    `by_first_word`: the forms that count inside a text, each as its words, its candidates, is it a synonym.
    """

    exact: dict[str, tuple[str, ...]]
    synonyms: dict[str, tuple[str, ...]]
    by_first_word: dict[str, list[tuple[list[str], tuple[str, ...], bool]]]


@lru_cache(maxsize=256)
def _label_forms(candidates: tuple[str, ...]) -> _LabelForms:
    exact: dict[str, tuple[str, ...]] = {}
    for candidate in dict.fromkeys(candidates):
        if form := normalise_label(candidate):
            exact[form] = (*exact.get(form, ()), candidate)
    synonyms: dict[str, tuple[str, ...]] = {}
    for form, owners in exact.items():
        for synonym in _SYNONYMS.get(form, ()):
            # A word that is itself a candidate means that candidate and no other.
            if synonym not in exact:
                synonyms[synonym] = (*synonyms.get(synonym, ()), *owners)
    forms = _LabelForms(exact, synonyms, {})
    for table, is_synonym in ((exact, False), (synonyms, True)):
        for form, owners in table.items():
            if not (is_synonym and form in _SYNONYMS_ONLY_ALONE):
                words = form.split()
                forms.by_first_word.setdefault(words[0], []).append((words, owners, is_synonym))
    return forms


def labels_equal_to(text: str, candidates: Sequence[str]) -> LabelMatch:
    """Find the candidates that the whole text stands for; several if candidates differ in form only."""
    if text.strip() and text in candidates:
        return LabelMatch((text,), by_synonym=False)
    forms = _label_forms(tuple(candidates))
    normalised = normalise_label(text)
    if normalised in forms.exact:
        return LabelMatch(forms.exact[normalised], by_synonym=False)
    labels = forms.synonyms.get(normalised, ())
    return LabelMatch(labels, by_synonym=bool(labels))


def match_label(text: str, candidates: Sequence[str]) -> str | None:
    """Give the candidate, in its own spelling, that the whole text stands for, else None.

    Equality after `normalise_label`, then synonyms (`sad`, `content`) and the misspellings of WEBEmo, in
    both directions. Words around the label are not looked through: see `labels_named_in`.
    """
    found = labels_equal_to(text, candidates).labels
    return found[0] if len(found) == 1 else None


def labels_named_in(text: str, candidates: Sequence[str]) -> LabelMatch:
    """Find the candidates that occur as whole words in a text, in the order of `candidates`.

    `great joy` does not name `joy` as well; `awe-inspiring`, `awe_inspiring` and `unhappy` name neither
    `awe` nor `happy`.
    """
    spans = _spans(text, _label_forms(tuple(candidates)))
    named: dict[str, bool] = {}
    covered = 0
    # By start, longest first: a span lies inside another exactly if it ends no later than an earlier one.
    for _, end, owners, is_synonym in sorted(spans, key=lambda span: (span[0], -span[1])):
        if end > covered:
            covered = end
            for owner in owners:
                named[owner] = named.get(owner, True) and is_synonym
    labels = tuple(candidate for candidate in dict.fromkeys(candidates) if candidate in named)
    return LabelMatch(labels, by_synonym=any(named.values()))


def _spans(text: str, forms: _LabelForms) -> list[tuple[int, int, tuple[str, ...], bool]]:
    """Give every occurrence of a form: first word, word after the last, candidates, is it a synonym."""
    words, glued = _words_of(text)
    spans = []
    for start, word in enumerate(words):
        for form_words, owners, is_synonym in forms.by_first_word.get(word, ()):
            end = start + len(form_words)
            if words[start:end] == form_words and start not in glued and end not in glued:
                spans.append((start, end, owners, is_synonym))
    return spans


def _words_of(text: str) -> tuple[list[str], set[int]]:
    """Split into normalised words, with the positions of words that `-` or `_` ties to the one before."""
    words: list[str] = []
    glued: set[int] = set()
    for number, part in enumerate(_JOINT_IN_WORD.split(text)):
        if number:
            glued.add(len(words))
        words.extend(normalise_label(part).split())
    return words, glued
