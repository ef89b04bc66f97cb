"""Unsafe pictures, told by an image classification model."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub import hub
from ggez_hub.data import images
from ggez_hub.data.filters import Outcome, Rule
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.schema import Unsafe

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

BATCH = 32  # pictures that are classified at once
SIDE = 1024  # pixels that a picture is held with, more than models see: many large ones would fill the memory


def unsafe_picture(settings: Unsafe) -> Rule:
    """Drops rows whose picture a model finds unsafe, and those with no picture that can be decoded.

    Args:
        settings: With the `id` of an image classification model of transformers.

    Raises:
        InputError: No such model, or it has no such label.
        HubError: The Hub refused or cannot be reached.
    """
    probabilities = _classifier(settings)

    def rule(batch: "pa.RecordBatch") -> Outcome:
        import pyarrow as pa

        found: list[float | str] = []  # of each row its probability, or why there is none
        for start in range(0, batch.num_rows, BATCH):
            part = [_decoded(image) for image in batch.column("image").slice(start, BATCH).to_pylist()]
            values = iter(probabilities([image for image in part if not isinstance(image, str)]))
            found += [image if isinstance(image, str) else next(values) for image in part]
        kept = [isinstance(each, float) and each <= settings.max for each in found]  # NaN is not
        why = [
            each if isinstance(each, str) else f"{settings.label} {each:.3f} {'<=' if good else '>'} {settings.max:g}"
            for each, good in zip(found, kept, strict=True)
        ]
        return Outcome(batch, pa.array(kept, pa.bool_()), pa.array(why, pa.string()))

    return rule


def _decoded(image: dict[str, Any] | None) -> "Image | str":
    """A picture, or why there is none."""
    try:
        decoded = images.decode(images.fetch(image))
    except images.BrokenImage as err:
        return err.message
    decoded.thumbnail((SIDE, SIDE))
    return decoded


def _classifier(settings: Unsafe) -> "Callable[[Sequence[Image]], list[float]]":
    """A function that gives the probability of the label for pictures."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    with hub.naming(settings.id or ""):
        folder = hub.fetch(settings.id or "", settings.revision)
        device = devices.best()
        classes: Any = (AutoModelForImageClassification, AutoImageProcessor)
        try:
            model, info = classes[0].from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **hub.HERE
            )
            processor = classes[1].from_pretrained(folder, **hub.HERE)
        except SafetensorError as err:
            raise InputError(f"{folder}: damaged weights: {err}", "fetch the model again") from err
        except hub.UNREADABLE as err:
            words = str(err).split("Model type should be one of")[0].strip()  # the list of all classes there are
            raise InputError(f"{folder}: cannot be loaded as an image classification model: {words}") from err
        if info["missing_keys"]:
            raise InputError(f"{folder}: damaged weights: {sorted(info['missing_keys'])[0]} is not there")
        labels = {str(name).casefold(): place for place, name in model.config.id2label.items()}
        if settings.label.casefold() not in labels:
            raise InputError(f"{folder}: no label {settings.label!r}{did_you_mean(settings.label, labels)}",
                             "name it with filter.unsafe.label=")  # fmt: skip
    place, model = labels[settings.label.casefold()], model.to(device).eval()
    each_alone = model.config.problem_type == "multi_label_classification" or len(labels) == 1

    def probabilities(pictures: "Sequence[Image]") -> list[float]:
        if not pictures:
            return []
        with torch.inference_mode(), devices.enough_memory("batch", BATCH):
            logits = model(**processor(images=list(pictures), return_tensors="pt").to(device)).logits.float()
        found: list[float] = (logits.sigmoid() if each_alone else logits.softmax(dim=1))[:, place].tolist()
        return found

    return probabilities
