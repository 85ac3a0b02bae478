"""Tokenizers of the tiny backbone, trained on caption text. Reads and writes nothing.

The trainers of the `tokenizers` library break ties in the order of a hash table, so the same text
gives other token numbers every time; these few lines do not.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5TokenizerFast

CLIP_TOKENS = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def clip_tokenizer(text: Sequence[str]) -> CLIPTokenizer:
    """Byte-pair tokenizer (Sennrich et al. 2016) with CLIP's normalisation and special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    characters = sorted(ByteLevel.alphabet())
    merges = _merges(_counts(line.lower() for line in text))
    # CLIPTextModel treats an end token of id 2 as a mark of old checkpoints.
    tokens = [_START, _END, *characters, *(character + _WORD_END for character in characters)]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def t5_tokenizer(text: Sequence[str]) -> T5TokenizerFast:
    """Unigram vocabulary with T5's spaces and special tokens: known words, and characters."""
    from transformers import T5TokenizerFast

    words = _counts(text)
    total = words.total()
    # Scores are log probabilities: a known word beats any spelling of it by characters.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, math.log(count / total)) for word, count in sorted(words.items())]
    pieces += [("▁", -20.0)] + [(character, -20.0) for character in map(chr, range(33, 127))]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def _counts(text: Iterable[str]) -> collections.Counter[str]:
    return collections.Counter(word for line in text for word in re.findall(r"[^\W\d_]+", line))


def _merges(words: collections.Counter[str]) -> list[tuple[str, str]]:
    """Merge the most frequent pair, the alphabetically first of equals, until words are whole."""
    spelled = {word: [*word[:-1], word[-1] + _WORD_END] for word in sorted(words)}
    merges = []
    while True:
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, parts in spelled.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in spelled.values():
            for index in range(len(parts) - 2, -1, -1):
                if tuple(parts[index : index + 2]) == best:
                    parts[index : index + 2] = ["".join(best)]
