"""Tab "Drift": what the monitor saw, test by test, and Evidently's report."""

from typing import Any

import gradio as gr

from client.service import Service, ServiceError
from ui import choice, words

_HEADERS = ["column", "drifted", "p-value", "drifts below", "statistic", "test"]
_TESTS = {"ks": "Kolmogorov-Smirnov", "z": "two-proportion z", "fisher_exact": "Fisher's exact"}


def build(client: Service, tab: gr.Tab) -> None:
    """Fill the tab; it asks when somebody opens it."""
    model = choice.choice()
    said = gr.HTML()
    refresh = gr.Button("Look again")
    table = gr.Dataframe(headers=_HEADERS, interactive=False, label="Tests, one a column", visible=False)
    report = gr.HTML(elem_classes="report")

    def look(name: str | None) -> tuple[Any, ...]:
        try:
            name, choices = choice.chosen(name, [card["name"] for card in client.models()])
            found = client.drift(name)
        except ServiceError as error:
            return gr.skip(), words.problem(str(error)), gr.Dataframe(visible=False), ""
        rows = [
            [
                column["name"],
                "yes" if column["drifted"] else "no",
                _short(column["p_value"]),
                _short(column["threshold"]),
                f"{column['statistic']:.3f}",
                _TESTS[column["test"]],
            ]
            for column in found["columns"]
        ]
        return choices, words.drift(found), gr.Dataframe(rows, visible=bool(rows)), _report(found["report_url"])

    def _report(url: str | None) -> str:
        if url is None:
            return ""
        try:
            return words.frame(client.html(url), "Evidently's report of the same photos")
        except ServiceError as error:
            return words.problem(str(error))

    for event in (tab.select, refresh.click, model.input):
        event(look, model, [model, said, table, report])


def _short(number: float) -> str:
    if number < 1e-300:
        return "under 1e-300"
    return f"{number:.2g}" if number < 0.001 else f"{number:.3f}"
