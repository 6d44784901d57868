"""The headline scores of a run, found out from what was scored and what that was made from.

* **CAMs**: masks cut straight from CAMs, on the images that the network was trained on.
* **Pseudo labels**: on those images too, whatever trained the final segmenter. Where no network was trained on masks:
  what the final segmenter predicts there, else refined CAMs, else plain ones.
* **Final segmenter**: predictions of the checkpoint that no other segmenter was made from, on other images.

Where several scores fit, one of all masks counts before one of a part of them, then the newest, never the best; the
others are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pseudolabel.artefacts import Header
from pseudolabel.options import PredictMasksOptions
from pseudolabel.options.fields import default_of
from pseudolabel.runs.lineage import Node, RunFolder

_LABELS = ("masks", "soft-labels")
_SEGMENTS = ("segmenter", "scribble", "semi", "cosa")
"""Types of networks that predict masks."""
NO_CAMS = "there are none in this run"
"""The reason of a run without CAMs: nothing is missing there."""
_OF_SOME = ", with --split LIST where only the images of a list have ground truth"
Side = Mapping[str, Any]
"""Scores of one label map: the result of evaluate-masks, or one of its parts."""


@dataclass(frozen=True)
class Score:
    """A ``scores`` artefact and its place in a run.

    Attributes:
        node: The artefact.
        scored: The masks or soft labels that were scored.
        source: The CAMs or the checkpoint that they come from.
        plain: Whether they are CAMs that were only cut at a threshold.
        training: Whether the images are those that the network was trained on.
    """

    node: Node
    scored: Node
    source: Node
    plain: bool
    training: bool

    @property
    def facts(self) -> Mapping[str, Any]:
        """The result of evaluate-masks."""
        return self.node.header.facts


@dataclass(frozen=True)
class HeadlineScore:
    """One thing that a run is asked for.

    Attributes:
        score: Where the answer stands; None if there is none.
        side: Which part of the score it is.
        reason: Why there is none, and what to do.
        others: Scores that fit too, and are older or of a part of the masks.
    """

    score: Score | None = None
    side: Side | None = None
    reason: str | None = None
    others: tuple[Score, ...] = ()


@dataclass(frozen=True)
class HeadlineScores:
    """All scores of a run.

    Attributes:
        chosen: By ``pseudo_labels``, ``cams``, ``segmenter`` and ``segmenter_with_tags``.
        rest: Scores that are none of these.
        unplaced: Name of a ``scores`` artefact to why it is not known what it scores.
        segmenter: The final segmenter's checkpoint.
    """

    chosen: Mapping[str, HeadlineScore]
    rest: tuple[Score, ...]
    unplaced: Mapping[str, str]
    segmenter: Node | None


def find_headline_scores(run: RunFolder) -> HeadlineScores:
    """Find out which of a run's scores is which."""
    scores, unplaced = [], {}
    for node in run.of_kind("scores"):
        found = _place(run, node)
        if isinstance(found, str):
            unplaced[node.name] = found
        else:
            scores.append(found)
    segmenter = final_segmenter(run, scores)
    pseudo = _pseudo_labels(run, scores, segmenter)
    plain, tagged = _segmenter(run, scores, segmenter)
    chosen = {
        "pseudo_labels": pseudo,
        "cams": _cams(run, scores, pseudo),
        "segmenter": plain,
        "segmenter_with_tags": tagged,
    }
    used = {figure.score.node for figure in chosen.values() if figure.score}
    return HeadlineScores(chosen, tuple(score for score in scores if score.node not in used), unplaced, segmenter)


def origin(run: RunFolder, labels: Node) -> tuple[Node | None, bool]:
    """The CAMs or the checkpoint that labels come from, and whether CAMs were only cut at a threshold."""
    chain = [labels]
    while chain[-1].kind in _LABELS:
        parents = (parent for parent in run.parents(chain[-1]) if parent.kind in (*_LABELS, "cams", "checkpoint"))
        before = next(parents, None)
        if before is None or before in chain:
            return None, False
        chain.append(before)
    return chain[-1], chain[-1].kind == "cams" and all(node.kind == "masks" for node in chain[:-1])


def final_segmenter(run: RunFolder, scores: list[Score]) -> Node | None:
    """The checkpoint that predicts masks and that no other such checkpoint was made from: a scored one, the newest."""
    labels = run.of_kind(*_LABELS)
    predicting = {parent for node in labels for parent in run.parents(node) if parent.kind == "checkpoint"}
    networks = run.of_kind("checkpoint")
    able = [node for node in networks if node in predicting or _trained_on(run, node)]
    able = able or [node for node in networks if _type_of(node) in _SEGMENTS]
    earlier = {ancestor for node in able for ancestor in run.ancestors(node)}
    scored = {score.source for score in scores if not score.training}
    last = [node for node in able if node not in earlier]
    return max(last, key=lambda node: (node in scored, node.header.created), default=None)


def _type_of(checkpoint: Node) -> Any:
    """The kind of network that it holds."""
    return checkpoint.header.facts.get("architecture", {}).get("type")


def _trained_on(run: RunFolder, checkpoint: Node) -> Node | None:
    return next((parent for parent in run.parents(checkpoint) if parent.kind == "masks"), None)


def _place(run: RunFolder, node: Node) -> Score | str:
    """Where a ``scores`` artefact belongs, or why that is not known."""
    item = next((item for item in node.header.inputs if item.kind in _LABELS), None)
    if item is None:
        return "PNG files were scored, which do not say what they were made of"
    scored = run.parent(node, item)
    if scored is None:
        return f"what was scored is not there any more: {run.fate(node, item)}"
    source, plain = origin(run, scored)
    if source is None:
        return f"what {scored.name} was made from is not there any more, or not recorded"
    # what was scored may be a part of the masks, whose own list says whose images all of them are
    place = _place_of((scored if scored.header.dataset else node).header)
    return Score(node, scored, source, plain, place == _training_place(run, source))


def _training_place(run: RunFolder, source: Node) -> tuple[Any, Any]:
    """Data set and split that the network behind CAMs or predictions was trained on.

    CAMs of others name no network: they count as made of the images that a segmenter was trained on with them, or else
    that they are of.
    """
    if source.kind == "checkpoint":
        return _place_of(source.header)
    networks = [node for node in run.parents(source) if node.kind == "checkpoint"]
    networks += [node for node in run.of_kind("checkpoint") if source in run.ancestors(node)]
    return _place_of((networks or [source])[0].header)


def _place_of(header: Header) -> tuple[Any, Any]:
    return header.dataset.get("dataset"), header.dataset.get("split")


def _pseudo_labels(run: RunFolder, scores: list[Score], segmenter: Node | None) -> HeadlineScore:
    here = [score for score in scores if score.training]
    masks = _trained_on(run, segmenter) if segmenter else None
    if segmenter is not None and masks is not None:
        fitting = [score for score in here if score.scored is masks or masks in _same_labels(run, score.scored)]
        missing = f"{masks.name}, which {segmenter.name} was trained on, has no scores"
        return _newest(fitting, as_they_are, f"{missing}; run 'pseudolabel evaluate-masks {masks.path}'{_OF_SOME}")
    for fitting in (
        [score for score in here if score.source is segmenter],
        [score for score in here if score.source.kind == "cams" and not score.plain],
        [score for score in here if score.plain],
    ):
        if fitting:
            return _newest(fitting, filtered, "")
    unscored = "no masks of the training images have scores; run 'pseudolabel evaluate-masks' on them"
    return HeadlineScore(reason=unscored + _OF_SOME)


def _same_labels(run: RunFolder, scored: Node) -> list[Node]:
    """Masks that are nothing but the label maps of the soft labels that were scored."""
    if scored.kind != "soft-labels":
        return []
    before = run.ancestors(scored) | {scored}
    return [node for node in run.of_kind("masks") if scored in run.parents(node) and set(run.parents(node)) <= before]


def _cams(run: RunFolder, scores: list[Score], pseudo: HeadlineScore) -> HeadlineScore:
    fitting = [score for score in scores if score.plain and score.training]
    if pseudo.score is not None:
        behind = run.ancestors(pseudo.score.node)
        own = [score for score in fitting if set(run.parents(score.scored)) <= behind]
        fitting = own or [score for score in fitting if score.source in behind] or fitting
    missing = (
        "no masks cut straight from CAMs of the training images have scores; run 'pseudolabel export-masks CAMS "
        "--threshold THRESHOLDS' and 'pseudolabel evaluate-masks' on what it writes"
    )
    return _newest(fitting, as_they_are, missing if run.of_kind("cams") else NO_CAMS)


def as_they_are(score: Score) -> Side:
    """Scores of the label maps that there are."""
    return score.facts


def filtered(score: Score) -> Side:
    """Scores with the image tags, or the only ones there are."""
    return score.facts.get("tag_filtered") or score.facts


def unfiltered(score: Score) -> Side | None:
    """Scores without the image tags, if there are any."""
    return score.facts.get("unfiltered")


def _segmenter(run: RunFolder, scores: list[Score], segmenter: Node | None) -> tuple[HeadlineScore, HeadlineScore]:
    """The final segmenter without and with the image tags, on images that it was not trained on."""
    if segmenter is None:
        none = HeadlineScore(reason="no checkpoint of this run predicts masks")
        return none, none
    fitting = [score for score in scores if score.source is segmenter and not score.training]
    fitting = [score for score in fitting if not score.facts.get("trained_on")]
    if not fitting:
        none = HeadlineScore(
            reason=f"{segmenter.name} has no scores on images that it was not trained on; run 'pseudolabel "
            f"predict-masks {segmenter.path} --split SPLIT' and 'pseudolabel evaluate-masks' on what it writes"
        )
        return none, none
    usual = default_of(PredictMasksOptions, "split")
    on_usual = [score for score in fitting if score.node.header.protocol.get("split") == usual]
    fitting = on_usual or fitting
    made = "its masks were predicted with the image tags; run 'pseudolabel predict-masks --tags none'"
    plain = _newest([score for score in fitting if unfiltered(score)], unfiltered, made)
    tagged = [score for score in fitting if score.facts.get("tag_filtered")]
    same = [score for score in tagged if score is plain.score]  # one prediction, scored twice, is best compared
    untagged = "there is no score with the image tags: some images have none"
    return plain, _newest(same or tagged, filtered, untagged)


def _newest(fitting: list[Score], side: Callable[[Score], Side | None], missing: str) -> HeadlineScore:
    if not fitting:
        return HeadlineScore(reason=missing)
    ordered = sorted(
        fitting,
        key=lambda score: (-(score.facts.get("unscored") or 0), score.node.header.created, score.node.name),
    )
    return HeadlineScore(ordered[-1], side(ordered[-1]), others=tuple(ordered[:-1]))
