"""The WebUI's entry to SciArt."""

from sciart_ext.host.a1111.page.infotext import register_infotext
from sciart_ext.host.a1111.page.tab import register_tab
from sciart_ext.host.a1111.page.xyz import register_axes
from sciart_ext.host.a1111.routes.api import register_routes
from sciart_ext.host.a1111.script import SciArtScript  # noqa: F401  (the WebUI looks for it here)
from sciart_ext.host.a1111.settings import register_settings

register_routes()
register_infotext()
register_settings()
register_tab()
register_axes()
