"""The page's interactive charts, as plotly.js figures."""
