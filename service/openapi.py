"""The OpenAPI page and schema."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse


def page(title: str) -> HTMLResponse:
    """Return the page; BentoML ships Swagger UI, so that it needs no other host."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url="/static_content/swagger-ui-bundle.js",
        swagger_css_url="/static_content/swagger-ui.css",
        swagger_favicon_url="/static_content/favicon-light-32x32.png",
    )


def schema(app: FastAPI) -> dict[str, Any]:
    """Return the schema of our routes and of those that BentoML answers."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        text = {"text/plain": {"schema": {"type": "string"}}}
        for path, summary in {
            "/livez": "The process lives",
            "/healthz": "The process lives",
            "/readyz": "The model is loaded and requests are welcome",
        }.items():
            responses = {
                "200": {"description": summary, "content": text},
                "503": {"description": "not so", "content": error},
            }
            found["paths"][path] = {"get": {"tags": ["facts"], "summary": summary, "responses": responses}}
        app.openapi_schema = found
    return app.openapi_schema
