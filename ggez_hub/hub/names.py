"""Names that libraries have for models of the Hub."""

from ggez_hub.errors import DependencyError, InputError, did_you_mean

OPEN_CLIP = "open_clip:"


def hub_id(name: str) -> str:
    """The Hub id of a model, which may be given as ``hf-hub:ORG/NAME`` or as ``open_clip:MODEL/TAG``.

    Raises:
        InputError: open_clip knows no such weights, or has them from elsewhere than the Hub.
        DependencyError: open_clip is not installed.
    """
    if not name.startswith(OPEN_CLIP):
        return name.removeprefix("hf-hub:")
    try:
        from open_clip import pretrained
    except ImportError as err:
        raise DependencyError(f"{name}: needs open_clip", 'pip install "ggez_hub[open_clip]"') from err
    model, _, tag = name.removeprefix(OPEN_CLIP).rpartition("/")
    found = pretrained.get_pretrained_cfg(model, tag)
    if not found:
        known = (f"{OPEN_CLIP}{model}/{tag}" for model, tag in pretrained.list_pretrained())
        raise InputError(f"{name}: open_clip has no such weights{did_you_mean(name, known)}")
    namespace, _, rest = found["hf_hub"].partition("/")  # and a file, where it is another than the usual one
    if not rest:
        raise InputError(f"{name}: its weights are not on the Hub, but at {found['url']}", "give other weights")
    return f"{namespace}/{rest.partition('/')[0]}"
