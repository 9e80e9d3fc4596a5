"""The choice of a model, in the tabs that tell of one."""

import gradio as gr


def choice() -> gr.Radio:
    """Return the choice; it is hidden until there is something to choose."""
    return gr.Radio([], label="Model", visible=False)


def chosen(name: str | None, names: list[str]) -> tuple[str, gr.Radio]:
    """Return the chosen model's name, and the choice as it is shown then.

    Args:
        name: what was chosen before; None, or a model that is gone: the first is taken.
        names: of the models in service, at least one.
    """
    name = name if name in names else names[0]
    return name, gr.Radio(names, value=name, visible=len(names) > 1)
