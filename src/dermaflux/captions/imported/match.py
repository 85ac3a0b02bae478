"""Captions written elsewhere, matched to the images of the corpus.

For the captions DermaFlux released (one JSON file per dataset, keys not documented) and for what
other people's tools write. Images without a caption and captions without an image are counted and
named. Reads files, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dermaflux.captions.imported.entries import Entry, NoCaptionsError, lost_in, one_line
from dermaflux.captions.imported.fields import ID, TEXT, image_and_text, image_name, own_fields
from dermaflux.captions.imported.files import SIDECARS, caption_files, entries
from dermaflux.captions.imported.names import Names
from dermaflux.errors import InputError, quoted

DATASETS = (
    *("mednode", "hiba", "derm12345", "isic2019", "isic2020", "milk10k", "padufes20"),
    *("kaggle1", "kaggle2", "ddi", "isic2024", "isic2018"),
)
"""A file with such a name holds captions of that dataset only, in this corpus or not."""
_FILE_NAMES = {"pad20": "padufes20", "pad": "padufes20", "pad_ufes_20": "padufes20"}
"""Released files that are named differently from the dataset's folder."""
_LISTED = 3


@dataclass
class CaptionMatch:
    """Captions by image, and what did not match."""

    captions: dict[str, str] = field(default_factory=dict)
    """image_id -> text."""
    images_without: list[str] = field(default_factory=list)
    """image_ids that no caption refers to."""
    captions_without: list[str] = field(default_factory=list)
    """Ids in the files that match no image of the corpus."""
    ambiguous: list[str] = field(default_factory=list)
    """Ids in the files that match several images; none of them gets the caption."""
    notes: list[str] = field(default_factory=list)
    """What was assumed of a file, one sentence each."""

    def summary(self) -> str:
        """One line with every count and the first names."""
        counts = {
            "images without a caption": self.images_without,
            "captions without an image": self.captions_without,
            "captions that fit several images": self.ambiguous,
        }
        parts = [f"{len(self.captions):,} captions matched"]
        for what, ids in counts.items():
            examples = ", ".join(map(quoted, ids[:_LISTED]))
            parts.append(f"{len(ids):,} {what}" + (f" (such as {examples})" if ids else ""))
        return "; ".join(parts)


def read(path: Path, image_ids: Iterable[str]) -> CaptionMatch:
    """Captions of a file, or of every file of a folder, for these images.

    An id in a file is an image_id, the id or file name that the dataset published, or a path that
    ends in one. A file named after a dataset applies to that dataset only. Raises `InputError` when
    a file or its schema cannot be read, when an image has two different captions, and when none of
    the images has one.
    """
    corpus_ids = sorted(image_ids)
    datasets = {image_id.split("/")[0] for image_id in corpus_ids} | set(DATASETS)
    match, origins = CaptionMatch(), dict[str, str]()
    names: dict[str | None, Names] = {}
    for file in sorted(caption_files(path), key=lambda file: file.suffix.lower() not in SIDECARS):
        dataset = _FILE_NAMES.get(file.stem.lower(), file.stem.lower())
        scope = dataset if dataset in datasets else None
        if scope not in names:
            wanted = [i for i in corpus_ids if scope is None or i.startswith(f"{scope}/")]
            names[scope] = Names(wanted)
        try:
            _add_file(match, origins, file, path, names[scope])
        except NoCaptionsError as error:
            # A table of labels beside images with their texts is no fault.
            if not match.captions:
                raise
            match.notes.append(str(error))
    if not match.captions:
        raise InputError(
            f"{quoted(str(path))} matches none of the {len(corpus_ids)} images of the corpus; its "
            f"ids look like {_examples(match.captions_without)}, the corpus's like "
            f"{_examples(corpus_ids)}; rename them to the corpus's image_id"
        )
    match.images_without = [image_id for image_id in corpus_ids if image_id not in match.captions]
    return match


def _examples(ids: list[str]) -> str:
    return ", ".join(map(quoted, ids[:_LISTED])) or "nothing"


def _add_file(
    match: CaptionMatch, origins: dict[str, str], file: Path, root: Path, names: Names
) -> None:
    """Add the captions of a file; `origins` says where the caption of each image was."""
    found, encoding = entries(file, root, names)
    if not found:
        raise InputError(
            f"captions file {quoted(str(file))} holds no records; put captions there or remove it"
        )
    if encoding is not None:
        match.notes.append(f"captions file {quoted(str(file))} is not UTF-8: read as {encoding}")
    identity, text = _image_and_text(found, file, names)
    for entry in found:
        its_identity, its_text = own_fields(entry, identity, text, names)
        name = image_name(entry.fields.get(its_identity))
        image_id, ambiguous = names.find(name)
        _check_row(entry, file, image_id)
        _check_text(entry, its_text, file)
        caption = one_line(entry.fields.get(its_text))
        where = f"{entry.where} of {quoted(_below(root, file))}"
        if image_id is None:
            unmatched = match.ambiguous if ambiguous else match.captions_without
            unmatched.append(name or f"{where}, which names none")
        elif match.captions.setdefault(image_id, caption) != caption:
            raise InputError(
                f"image {quoted(image_id)} has one caption at {origins[image_id]} and another at "
                f"{where}; remove one of them"
            )
        else:
            origins.setdefault(image_id, where)


def _image_and_text(found: list[Entry], file: Path, names: Names) -> tuple[str, str]:
    if all(entry.fields.keys() == {ID, TEXT} for entry in found):
        return ID, TEXT
    return image_and_text(found, file, names)


def _below(root: Path, file: Path) -> str:
    """The path of a file in the folder that was named; several may have one name."""
    return file.name if file == root else file.relative_to(root).as_posix()


def _check_text(entry: Entry, text: str, file: Path) -> None:
    """Raise `InputError` for a caption of which `one_line` would lose words."""
    lost = lost_in(entry.fields.get(text))
    if lost is not None:
        raise InputError(
            f"captions file {quoted(str(file))} has at {entry.where} {lost} as its {quoted(text)}; "
            "give one text, or a list of texts"
        )


def _check_row(entry: Entry, file: Path, image_id: str | None) -> None:
    """Raise `InputError` for a row of a table that was torn apart."""
    if entry.misfit is None:
        return
    count, wanted = entry.misfit
    if count < wanted and image_id is not None:  # its last values are missing
        return
    inside = "a separator" if count > wanted else "a line break"
    raise InputError(
        f"captions file {quoted(str(file))} has {count} fields at {entry.where} and {wanted} in "
        f"its header; enclose texts with {inside} inside in double quotes"
    )
