"""The status page: plain files, served as they are. It has no data; what it shows it asks the API for."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from ..operations import Operation

__all__ = ["PageFiles"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    # Nothing but its own files runs or is loaded, and nobody may frame it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class PageFiles:
    """The handlers."""

    def __init__(self) -> None:
        self._files = {
            entry.name: entry.read_bytes()
            for entry in resources.files(__name__).iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }

    def operations(self) -> list[Operation]:
        tags = ("page",)
        file = {200: "text/plain"}
        return [
            Operation("GET", "/", self.show_page, "The status page", {200: "text/html"}, is_open=True, tags=tags),
            *(
                Operation("GET", f"/page/{name}", self.show_file, f"{name} of it", file, is_open=True, tags=tags)
                for name in sorted(self._files)
                if not name.endswith(".html")
            ),
        ]

    async def show_page(self, request: web.Request) -> web.Response:
        """A live picture of the worker. It asks for the token itself, where there is one."""
        return self._answer("index.html")

    async def show_file(self, request: web.Request) -> web.Response:
        """A file that the page is made of."""
        return self._answer(request.path.rpartition("/")[2])

    def _answer(self, name: str) -> web.Response:
        kind = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8", headers=_HEADERS)
