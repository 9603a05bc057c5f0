"""The WebUI's entry to SciArt."""

from sciart_ext.host.a1111_api import register_routes
from sciart_ext.host.a1111_infotext import register_infotext
from sciart_ext.host.a1111_script import SciArtScript  # noqa: F401  (the WebUI looks for it here)
from sciart_ext.host.a1111_settings import register_settings
from sciart_ext.host.a1111_tab import register_tab
from sciart_ext.host.a1111_xyz import register_axes

register_routes()
register_infotext()
register_settings()
register_tab()
register_axes()
